// CRC32C (Castagnoli).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace holdfast {

// Continues from `seed`: 0 to begin.
uint32_t Crc32c(uint32_t seed, const uint8_t* bytes, size_t length);

struct Crc32cMethod {
  const char* kind;
  // On the raw state: inverted before and after.
  uint32_t (*run)(uint32_t crc, const uint8_t* bytes, size_t length);
};

// What this processor has, the one that `Crc32c` uses first. At least one.
const std::vector<Crc32cMethod>& Crc32cMethods();

}  // namespace holdfast
