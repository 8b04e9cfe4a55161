// Philox4x32-10 with key = (seed low, seed high) and counter = (block, purpose, sample id low,
// sample id high), as smnm_kernels.reference defines it.
#pragma once

#include <cstdint>

#include "constants.h"
#include "integers.h"

namespace smnm {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

// Everything of a counter and key but the block.
struct PhiloxSequence {
  uint32_t key0, key1, purpose, id_low, id_high;
};

SMNM_HOST_DEVICE PhiloxSequence philox_sequence(int64_t seed, Purpose purpose, int64_t sample_id) {
  const auto s = static_cast<uint64_t>(seed), id = static_cast<uint64_t>(sample_id);
  return {static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32), purpose,
          static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)};
}

// The four words of one block.
SMNM_HOST_DEVICE void philox_block(const PhiloxSequence& s, uint32_t block, uint32_t out[4]) {
  uint32_t c0 = block, c1 = s.purpose, c2 = s.id_low, c3 = s.id_high;
  uint32_t key0 = s.key0, key1 = s.key1;
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = multiply_high(kPhiloxMultiplier0, c0), low0 = kPhiloxMultiplier0 * c0;
    const uint32_t high1 = multiply_high(kPhiloxMultiplier1, c2), low1 = kPhiloxMultiplier1 * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

}  // namespace smnm
