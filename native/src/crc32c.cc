// Three implementations, the fastest that the processor has is used: folding by carry-less products
// (crc32c_fold.cc), the CRC instruction, tables.
//
// Of the CRC instruction three independent streams hide the latency (three cycles, one per cycle
// can start); their results are joined by shifting a CRC over the zero bytes of the streams behind
// it, with tables made at start-up. The length of a stream is chosen so that a 4 KiB block is three
// streams and a short rest.
#include "crc32c.h"

#include <cstring>

#include "crc32c_fold.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace holdfast {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;
constexpr size_t kStream = 1360;  // three make 4080 of 4096 bytes

struct Tables {
  uint32_t slice[8][256];
  // Shifts a CRC over kStream zero bytes, one byte of it at a time.
  uint32_t shift[4][256];

  Tables() {
    for (uint32_t value = 0; value < 256; value++) {
      uint32_t crc = value;
      for (int bit = 0; bit < 8; bit++) crc = (crc & 1) ? (crc >> 1) ^ kPolynomial : crc >> 1;
      slice[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; value++) {
      for (int k = 1; k < 8; k++) {
        slice[k][value] = (slice[k - 1][value] >> 8) ^ slice[0][slice[k - 1][value] & 0xff];
      }
    }
    for (int byte = 0; byte < 4; byte++) {
      for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value << (8 * byte);
        for (size_t i = 0; i < kStream; i++) crc = (crc >> 8) ^ slice[0][crc & 0xff];
        shift[byte][value] = crc;
      }
    }
  }

  uint32_t Shift(uint32_t crc) const {
    return shift[0][crc & 0xff] ^ shift[1][(crc >> 8) & 0xff] ^ shift[2][(crc >> 16) & 0xff] ^
           shift[3][crc >> 24];
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

uint64_t Load64(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

uint32_t SoftwareCrc(uint32_t crc, const uint8_t* bytes, size_t length) {
  const Tables& t = tables();
  while (length >= 8) {
    // Byte by byte out of memory, so that the order of bytes in a word does not matter.
    uint32_t low = crc ^ (bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t{bytes[3]} << 24);
    crc = t.slice[7][low & 0xff] ^ t.slice[6][(low >> 8) & 0xff] ^ t.slice[5][(low >> 16) & 0xff] ^
          t.slice[4][low >> 24] ^ t.slice[3][bytes[4]] ^ t.slice[2][bytes[5]] ^
          t.slice[1][bytes[6]] ^ t.slice[0][bytes[7]];
    bytes += 8;
    length -= 8;
  }
  while (length-- > 0) crc = (crc >> 8) ^ t.slice[0][(crc ^ *bytes++) & 0xff];
  return crc;
}

#if defined(__x86_64__)
#define HOLDFAST_HARDWARE __attribute__((target("sse4.2")))
#define HOLDFAST_CRC64(crc, word) static_cast<uint32_t>(_mm_crc32_u64(crc, word))
#define HOLDFAST_CRC8(crc, byte) _mm_crc32_u8(crc, byte)
bool HardwareAvailable() { return __builtin_cpu_supports("sse4.2"); }
constexpr const char* kHardware = "sse4.2";
#elif defined(__aarch64__)
#define HOLDFAST_HARDWARE __attribute__((target("+crc")))
#define HOLDFAST_CRC64(crc, word) __crc32cd(crc, word)
#define HOLDFAST_CRC8(crc, byte) __crc32cb(crc, byte)
bool HardwareAvailable() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
constexpr const char* kHardware = "armv8";
#endif

#if defined(HOLDFAST_HARDWARE)
HOLDFAST_HARDWARE uint32_t HardwareCrc(uint32_t crc, const uint8_t* bytes, size_t length) {
  const Tables& t = tables();
  while (length >= 3 * kStream) {
    uint32_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kStream; i += 8) {
      a = HOLDFAST_CRC64(a, Load64(bytes + i));
      b = HOLDFAST_CRC64(b, Load64(bytes + kStream + i));
      c = HOLDFAST_CRC64(c, Load64(bytes + 2 * kStream + i));
    }
    crc = t.Shift(t.Shift(a) ^ b) ^ c;
    bytes += 3 * kStream;
    length -= 3 * kStream;
  }
  while (length >= 8) {
    crc = HOLDFAST_CRC64(crc, Load64(bytes));
    bytes += 8;
    length -= 8;
  }
  while (length-- > 0) crc = HOLDFAST_CRC8(crc, *bytes++);
  return crc;
}

// Folds what it can; the CRC instruction does the rest.
uint32_t FoldedCrc(uint32_t crc, const uint8_t* bytes, size_t length) {
  const size_t folded = Crc32cFold(&crc, bytes, length);
  return HardwareCrc(crc, bytes + folded, length - folded);
}
#endif

std::vector<Crc32cMethod> Available() {
  std::vector<Crc32cMethod> methods;
#if defined(HOLDFAST_HARDWARE)
  if (HardwareAvailable()) {
    if (Crc32cFoldAvailable()) methods.push_back({"vpclmulqdq", FoldedCrc});
    methods.push_back({kHardware, HardwareCrc});
  }
#endif
  methods.push_back({"table", SoftwareCrc});
  return methods;
}

const Crc32cMethod kBest = Available().front();

}  // namespace

uint32_t Crc32c(uint32_t seed, const uint8_t* bytes, size_t length) {
  return ~kBest.run(~seed, bytes, length);
}

const std::vector<Crc32cMethod>& Crc32cMethods() {
  static const std::vector<Crc32cMethod> methods = Available();
  return methods;
}

}  // namespace holdfast
