// Philox4x32-10 counters as laid out in smnm_kernels/reference.py:
// key = (seed low, seed high), counter = (block, stream, sample id low, sample id high).
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SMNM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SMNM_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace smnm {

enum Stream : uint32_t { kNoise = 0, kSigma = 1, kOrder = 2, kTie = 3, kCrop = 4 };

// Everything of a counter and key but the block.
struct PhiloxStream {
  uint32_t key0, key1, stream, id_low, id_high;
};

SMNM_HOST_DEVICE PhiloxStream philox_stream(int64_t seed, Stream stream, int64_t sample_id) {
  const auto s = static_cast<uint64_t>(seed), id = static_cast<uint64_t>(sample_id);
  return {static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32), stream,
          static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)};
}

// The four words of `n` consecutive blocks: out[word * stride + i] for block first + i. One loop
// whose body is straight-line code, which compilers turn into vectors.
SMNM_HOST_DEVICE void philox_blocks(const PhiloxStream& s, uint32_t first, int64_t n,
                                    int64_t stride, uint32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t c0 = first + static_cast<uint32_t>(i), c1 = s.stream, c2 = s.id_low, c3 = s.id_high;
    uint32_t key0 = s.key0, key1 = s.key1;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
      const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
      c1 = static_cast<uint32_t>(product1);
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
      c3 = static_cast<uint32_t>(product0);
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    out[i] = c0;
    out[stride + i] = c1;
    out[2 * stride + i] = c2;
    out[3 * stride + i] = c3;
  }
}

}  // namespace smnm
