// The random words of a sample's tokens.
#pragma once

#include <algorithm>
#include <cstdint>

#include "philox_blocks.h"

namespace smnm {

// Calls body(token, word) for each of n tokens.
template <class Body>
void for_each_word(int64_t seed, Purpose purpose, int64_t sample_id, int64_t n, const Body& body) {
  constexpr int64_t kBlocks = 64;  // drawn at a time
  const PhiloxSequence sequence = philox_sequence(seed, purpose, sample_id);
  const int64_t q = (n + 3) / 4;
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    for (int j = 0; j < 4; ++j) {
      const int64_t first = j * q + b, count = std::min(kBlocks, std::min(q - b, n - first));
      for (int64_t i = 0; i < count; ++i) body(first + i, words[j * kBlocks + i]);
    }
  }
}

}  // namespace smnm
