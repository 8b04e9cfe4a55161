// The keys that tokens are drawn by, as smnm_kernels/reference/draws.py defines them.
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
    const int32_t wait = (32 << kLogBits) - log2_of_int(logarithms, uniform);
    return log2_of_int(logarithms, static_cast<uint32_t>(wait)) - (kLogBits << kLogBits);
  }
  const uint32_t rest = 0u - uniform;
  return log2_of_int(logarithms, rest) - (32 << kLogBits) +
         interpolated(logarithms.shares, rest >> 22, static_cast<int32_t>(rest >> 9 & 8191));
}

// DRAW_RULES of smnm_kernels/tables/constants.py.
enum class DrawRule : int64_t { kWeights, kLog2Weights, kScores };

// Tokens with larger keys are drawn first.
template <DrawRule rule>
inline int32_t draw_key(const Logarithms& logarithms, float value, uint32_t word) {
  constexpr int32_t kInfinity = 0x7F800000, kNormal = 0x00800000, kFirst = INT32_MAX - 1;
  int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & INT32_MAX) > kInfinity) return kFirst;
  if constexpr (rule == DrawRule::kScores) {
    // The bits of negative numbers grow with their magnitude, and -0 becomes 0.
    return bits < 0 ? INT32_MIN - bits : bits;
  }
  int32_t log2;
  if constexpr (rule == DrawRule::kLog2Weights) {
    constexpr float kMost = kMaxLog2, kUnit = 1 << kLogBits;
    log2 = static_cast<int32_t>(kUnit * (value < -kMost ? -kMost : value > kMost ? kMost : value));
  } else {
    if (bits == kInfinity) return kFirst;
    if (bits <= 0) return -INT32_MAX + static_cast<int32_t>(word >> 3);
    log2 = bits < kNormal ? log2_of_int(logarithms, static_cast<uint32_t>(bits)) - (149 << kLogBits)
                          : log2_of_bits(logarithms, bits);
  }
  return log2 - log2_of_wait(logarithms, word);
}

}  // namespace smnm
