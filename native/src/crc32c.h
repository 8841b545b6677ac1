// CRC32C (Castagnoli), reflected polynomial 0x82f63b78.
#pragma once
#include <cstddef>
#include <cstdint>

namespace holdfast {

// CRC of `length` bytes continued from `seed` (0 to begin).
uint32_t Crc32c(uint32_t seed, const uint8_t* bytes, size_t length);

// Which implementation the processor allows: "sse4.2", "armv8" or "table".
const char* Crc32cKind();

}  // namespace holdfast
