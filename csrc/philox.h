// Philox4x32-10 counters as laid out in smnm_kernels/reference.py:
// key = (seed low, seed high), counter = (block, stream, sample id low, sample id high).
#pragma once

#include <cstdint>

#include "integers.h"

namespace smnm {

enum Stream : uint32_t { kNoise = 0, kSigma = 1, kOrder = 2, kTie = 3, kCrop = 4 };

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

// Everything of a counter and key but the block.
struct PhiloxStream {
  uint32_t key0, key1, stream, id_low, id_high;
};

SMNM_HOST_DEVICE PhiloxStream philox_stream(int64_t seed, Stream stream, int64_t sample_id) {
  const auto s = static_cast<uint64_t>(seed), id = static_cast<uint64_t>(sample_id);
  return {static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32), stream,
          static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)};
}

// The four words of one block.
SMNM_HOST_DEVICE void philox_block(const PhiloxStream& s, uint32_t block, uint32_t out[4]) {
  uint32_t c0 = block, c1 = s.stream, c2 = s.id_low, c3 = s.id_high;
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

// The words of `n` consecutive blocks, on the CPU's widest vectors:
// out[word * stride + i] is that of block first + i.
void philox_blocks(const PhiloxStream& stream, uint32_t first, int64_t n, int64_t stride,
                   uint32_t* out);

}  // namespace smnm
