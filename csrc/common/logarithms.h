// The keys of weighted draws, as smnm_kernels/reference/weighted.py defines them.
#pragma once

#include <cstdint>
#include <cstring>

#include "constants.h"
#include "integers.h"

namespace smnm {

// int32 tables of smnm_kernels/tables/logarithms.py, one behind the other.
struct Logarithms {
  const int32_t *mantissas, *shares;

  static constexpr int64_t kSize = kNMantissas + 1 + kNShares + 1;

  explicit Logarithms(const int32_t* packed)
      : mantissas(packed), shares(packed + kNMantissas + 1) {}
};

// Between two entries, part / 8192 of the way.
inline int32_t interpolated(const int32_t* table, uint32_t interval, int32_t part) {
  const int32_t low = table[interval], high = table[interval + 1];
  return low + ((high - low) * part >> 13);
}

// log2 of a normal float32 with these bits, times 2^kLogBits.
inline int32_t log2_of_bits(const Logarithms& logarithms, int32_t bits) {
  const int32_t mantissa = bits & 0x7FFFFF;
  return bits - (127 << kLogBits) +
         interpolated(logarithms.mantissas, mantissa >> 13, mantissa & 8191);
}

// Of n >= 1, rounded to float32.
inline int32_t log2_of_int(const Logarithms& logarithms, uint32_t n) {
  const auto rounded = static_cast<float>(n);
  int32_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return log2_of_bits(logarithms, bits);
}

// log2(-log2(U)) of U = (word | 1) / 2^32.
inline int32_t log2_of_wait(const Logarithms& logarithms, uint32_t word) {
  const uint32_t uniform = word | 1;
  if (uniform >> 31 == 0) {
    const int32_t wait = static_cast<int32_t>((32u << kLogBits) - static_cast<uint32_t>(
                                                  log2_of_int(logarithms, uniform)));
    return log2_of_int(logarithms, static_cast<uint32_t>(wait)) - (kLogBits << kLogBits);
  }
  const uint32_t rest = 0u - uniform;
  return log2_of_int(logarithms, rest) - (32 << kLogBits) +
         interpolated(logarithms.shares, rest >> 22, static_cast<int32_t>(rest >> 9 & 8191));
}

// Larger keys are drawn first.
inline int32_t draw_key(const Logarithms& logarithms, float weight, uint32_t word) {
  constexpr int32_t kInfinity = 0x7F800000, kNormal = 0x00800000;
  int32_t bits;
  std::memcpy(&bits, &weight, sizeof(bits));
  if ((bits & 0x7FFFFFFF) > kInfinity || bits == kInfinity) return INT32_MAX - 1;
  if (bits <= 0) return -INT32_MAX + static_cast<int32_t>(word >> 3);
  const int32_t of_weight =
      bits < kNormal
          ? log2_of_int(logarithms, static_cast<uint32_t>(bits)) - (149 << kLogBits)
          : log2_of_bits(logarithms, bits);
  return of_weight - log2_of_wait(logarithms, word);
}

}  // namespace smnm
