// The constants that Python has too, in smnm_kernels/tables/constants.py; MAX_TOKENS is in
// smnm_kernels/arguments.py. A test compares them.
#pragma once

#include <cstdint>

namespace smnm {

// What random words are for: the second word of Philox's counter.
enum Purpose : uint32_t { kNoise = 0, kSigma = 1, kOrder = 2, kTie = 3, kCrop = 4 };

// Token indices fit 32 bits.
constexpr int64_t kMaxTokens = 1 << 30;

// Quantiles of N(0, 1), the values of white noise that is filtered.
constexpr int64_t kNQuantiles = 4096;
// The L2 norm of a pass's taps. Undoing it, halves round up; then the signal is clamped.
constexpr int kTapUnit = 2048, kTapShift = 11;
constexpr int kMaxSignal = 1500;
constexpr int kMaxField = (1 << 22) - 1;
// White noise that is not filtered: odd integers of this many bits and a sign, and their scale.
constexpr int kWhiteBits = 22;
constexpr float kWhiteScale = 1.7320508075688772 / (1 << kWhiteBits);

// Of R-BN: candidates fit kMaskBits, and scores are sums of thousandths.
constexpr int kMaskBits = 10;
constexpr int64_t kMaxCandidates = 1 << kMaskBits;
constexpr int64_t kMaxScore = 1 << 28;

}  // namespace smnm
