// CRC32C by folding with carry-less products of 512 bits, where the processor has them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace holdfast {

bool Crc32cFoldAvailable();

// Takes the CRC state over a multiple of 64 bytes from the start of `bytes` on and returns how many those were: 0 where
// there are too few to be worth it.
size_t Crc32cFold(uint32_t* crc, const uint8_t* bytes, size_t length);

}  // namespace holdfast
