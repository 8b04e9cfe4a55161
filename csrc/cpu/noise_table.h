// Noise tables, as one array.
#pragma once

#include <cstdint>

#include "../common/constants.h"
#include "noise_field.h"

namespace smnm {

// Reads the n numbers that smnm_kernels.tables.noise.packed_table() makes: the sides of the torus,
// n_levels and n_pairs; the float32 scales; then, as int16, taps, pairs and quantiles. White noise
// has no pairs, and nothing behind these five. The table points into the array. Returns nullptr, or
// what is wrong.
inline const char* read_table(const int32_t* packed, int64_t n, NoiseTable* table) {
  constexpr int64_t kNumbers = 5;
  constexpr const char* kOther = "table must be a packed noise table";
  if (n < kNumbers) return kOther;
  for (int i = 0; i < 3; ++i) {
    if (packed[i] < 1 || packed[i] > kMaxTokens) return kOther;
  }
  const int64_t n_levels = packed[3], n_pairs = packed[4];
  *table = {{packed[0], packed[1], packed[2]}, nullptr, nullptr, nullptr, n_pairs, nullptr};
  if (n_pairs == 0) return nullptr;
  const int64_t n_taps = n_levels * (table->torus.t + table->torus.h + table->torus.w);
  if (n_levels < 1 || n_pairs < 1 ||
      n != kNumbers + n_pairs + (n_taps + 3 * n_pairs + kNQuantiles + 1) / 2) {
    return kOther;
  }
  table->scale = reinterpret_cast<const float*>(packed + kNumbers);
  table->taps = reinterpret_cast<const int16_t*>(table->scale + n_pairs);
  table->pairs = table->taps + n_taps;
  table->quantiles = table->pairs + 3 * n_pairs;
  for (const int16_t* level = table->pairs; level != table->quantiles; level += 3) {
    if (level[0] < 0 || level[0] >= n_levels || level[1] >= n_levels) {
      return "pairs must name rows of taps";
    }
  }
  return nullptr;
}

}  // namespace smnm
