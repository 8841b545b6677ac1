// A CRC is the remainder of the message as a polynomial by P. Folding replaces a piece of the message by something
// short that is congruent to it, further behind: a register R that stands D bits before the end counts as R(x)·x^D.
// Cut into its halves, R = H·x^64 + L, and with the remainders of x^(D+64) and x^D by P as constants,
//
//     R·x^D  ≡  H·(x^(D+64) mod P) + L·(x^D mod P)    (mod P)
//
// which is again no longer than 128 bits and is added to the 128 bits that stand D bits later. Four registers of four
// such lanes go through the message; the constants are computed here.
//
// Bits are reflected (the lowest bit of the first byte is the highest power), so the carry-less product of two reflected
// halves is the reflected product times x: each constant has one power less than the formula says. The half with the
// higher powers is the one that comes first in memory, the lower half of a lane.
#include "crc32c_fold.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace holdfast {

#if defined(__x86_64__)

namespace {

#define HOLDFAST_FOLD __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))

// Below it the CRC instruction is as fast.
constexpr size_t kBytesMin = 512;

// x^power mod P, reflected, in the upper half of 64 bits: where a reflected polynomial of degree below 32 has its bits.
uint64_t PowerOfX(int power) {
  constexpr uint32_t kPolynomial = 0x82f63b78;
  uint32_t value = 0x80000000;
  for (int i = 0; i < power; i++) value = (value & 1) ? (value >> 1) ^ kPolynomial : value >> 1;
  return uint64_t{value} << 32;
}

// The constants that move one lane by `bits`.
struct Shift {
  uint64_t first;
  uint64_t second;
  explicit Shift(int bits) : first(PowerOfX(bits + 64 - 1)), second(PowerOfX(bits - 1)) {}
};

struct Constants {
  // All four lanes by the same distance: that of four registers, that of one.
  Shift far[4] = {Shift(2048), Shift(2048), Shift(2048), Shift(2048)};
  Shift near[4] = {Shift(512), Shift(512), Shift(512), Shift(512)};
  // Each lane to the place of the last one, which stays.
  Shift last[3] = {Shift(384), Shift(256), Shift(128)};
  uint64_t none[2] = {0, 0};
};
const Constants kConstants;

HOLDFAST_FOLD inline __m512i Load(const void* bytes) { return _mm512_loadu_si512(bytes); }

HOLDFAST_FOLD inline __m512i Fold(__m512i value, __m512i shift, __m512i onto) {
  const __m512i first = _mm512_clmulepi64_epi128(value, shift, 0x00);
  const __m512i second = _mm512_clmulepi64_epi128(value, shift, 0x11);
  return _mm512_ternarylogic_epi64(first, second, onto, 0x96);  // exclusive or of all three
}

}  // namespace

bool Crc32cFoldAvailable() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
}

HOLDFAST_FOLD size_t Crc32cFold(uint32_t* crc, const uint8_t* bytes, size_t length) {
  if (length < kBytesMin) return 0;
  const uint8_t* at = bytes;
  const uint8_t* const end = bytes + length / 64 * 64;
  // The state so far is added to the first 32 bits of the message.
  __m512i a = _mm512_xor_si512(Load(at), _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(*crc))));
  __m512i b = Load(at + 64), c = Load(at + 128), d = Load(at + 192);
  at += 256;
  const __m512i far = Load(kConstants.far);
  while (end - at >= 256) {
    a = Fold(a, far, Load(at));
    b = Fold(b, far, Load(at + 64));
    c = Fold(c, far, Load(at + 128));
    d = Fold(d, far, Load(at + 192));
    at += 256;
  }
  const __m512i near = Load(kConstants.near);
  d = Fold(Fold(Fold(a, near, b), near, c), near, d);
  while (at < end) {
    d = Fold(d, near, Load(at));
    at += 64;
  }
  const __m512i lanes = Fold(d, Load(kConstants.last), _mm512_setzero_si512());
  const __m128i sum = _mm_xor_si128(
      _mm_xor_si128(_mm512_extracti32x4_epi32(lanes, 0), _mm512_extracti32x4_epi32(lanes, 1)),
      _mm_xor_si128(_mm512_extracti32x4_epi32(lanes, 2), _mm512_extracti32x4_epi32(d, 3)));
  // What is left is a message of 16 bytes, whose state begins at zero.
  const uint64_t state = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_extract_epi64(sum, 0)));
  *crc = static_cast<uint32_t>(_mm_crc32_u64(state, static_cast<uint64_t>(_mm_extract_epi64(sum, 1))));
  return static_cast<size_t>(end - bytes);
}

#else

bool Crc32cFoldAvailable() { return false; }
size_t Crc32cFold(uint32_t*, const uint8_t*, size_t) { return 0; }

#endif

}  // namespace holdfast
