// Constants that smnm_kernels/tables/constants.py has, too; MAX_TOKENS is in
// smnm_kernels/arguments.py. A test compares them.
#pragma once

#include <cstdint>

namespace smnm {

// What random words are for: the second word of Philox's counter.
enum Purpose : uint32_t {
  kNoise = 0,
  kSigma = 1,
  kOrder = 2,
  kTie = 3,
  kCrop = 4,
  kDraw = 5,
  kReveal = 6,
  kMaskAgain = 7
};

// Token indices fit 32 bits.
constexpr int64_t kMaxTokens = 1 << 30;

// Length of the table of quantiles of N(0, 1), the values of white noise that is filtered.
constexpr int64_t kNQuantiles = 4096;
// The L2 norm of the taps of a pass, and the shift that divides by it. The signal is then clamped.
constexpr int kTapUnit = 2048, kTapShift = 11;
constexpr int kMaxSignal = 1500;
constexpr int kMaxField = (1 << 22) - 1;
// Values of white noise that is not filtered are odd integers of this many bits and a sign. Times
// kWhiteScale, they have unit variance.
constexpr int kWhiteBits = 22;
constexpr float kWhiteScale = 1.7320508075688772 / (1 << kWhiteBits);

// Logarithms of weighted draws are integers: log2 times 2^kLogBits. Entries of their tables,
// without the last.
constexpr int kLogBits = 23, kMaxLog2 = 127;
constexpr int kNMantissas = 1024, kNShares = 512;

// Values whose dispersion is measured are clamped to 2^kMaxValueBits and become multiples of
// 2^-kDeviationUnitBits, or of 2^-kVarianceUnitBits. Then a patch of kMaxPatch values keeps 64
// bits.
constexpr int kMaxValueBits = 10, kDeviationUnitBits = 16, kVarianceUnitBits = 12;
constexpr int64_t kMaxPatch = 1 << 17;

// The seed XOR this draws the structure of a mask. Blocks and bands of one mask; marks of places.
constexpr int64_t kStructureSeed = 0x2545F4914F6CDD1D;
constexpr int kNBlocks = 32, kNBands = 64, kMaxTargetBlocks = 64;
constexpr int kMaxMark = (1 << 9) - 1;

// The index of a mask in an R-BN bank has at most kMaskBits. Scores are sums of thousandths.
constexpr int kMaskBits = 10;
constexpr int64_t kMaxCandidates = 1 << kMaskBits;
constexpr int64_t kMaxScore = 1 << 28;

}  // namespace smnm
