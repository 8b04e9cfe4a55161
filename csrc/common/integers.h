// Integer functions for which a GPU has instructions, with the same results on the CPU.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SMNM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SMNM_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace smnm {

SMNM_HOST_DEVICE int32_t count_bits(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

// The index of the lowest bit that is set, 32 if none is.
SMNM_HOST_DEVICE int32_t lowest_bit(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __clz(static_cast<int>(__brev(word)));
#else
  return word == 0 ? 32 : __builtin_ctz(word);
#endif
}

// The index of the lowest bit that is set, after the lowest `skipped` of these. More than `skipped`
// bits must be set.
SMNM_HOST_DEVICE int32_t bit_after(uint32_t word, int32_t skipped) {
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
  for (; skipped > 0; --skipped) word &= word - 1;
  return lowest_bit(word);
}

// The lowest n bits, n <= 32.
SMNM_HOST_DEVICE uint32_t low_bits(int32_t n) { return n < 32 ? (1u << n) - 1 : ~0u; }

SMNM_HOST_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
#endif
}

SMNM_HOST_DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  // From 32-bit halves, because not every compiler has 128-bit integers.
  const uint64_t a0 = static_cast<uint32_t>(a), a1 = a >> 32;
  const uint64_t b0 = static_cast<uint32_t>(b), b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  return a1 * b1 + (middle >> 32) + ((static_cast<uint32_t>(middle) + a0 * b1) >> 32);
#endif
}

// Divides by a number that the host knows, without a division on the GPU, which takes about a
// hundred cycles.
template <class Unsigned>
struct Divisor {
  Unsigned value, reciprocal;

  // The quotient by the rounded reciprocal is at most one too small.
  SMNM_HOST_DEVICE Unsigned quotient(Unsigned x) const {
    const Unsigned q = multiply_high(x, reciprocal);
    return q + (x - q * value >= value);
  }
};

template <class Unsigned>
Divisor<Unsigned> divisor(Unsigned value) {
  return {value, static_cast<Unsigned>(static_cast<Unsigned>(-1) / value)};
}

}  // namespace smnm
