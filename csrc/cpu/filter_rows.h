// The first pass of a colored field: along the contiguous axis of the torus, for both Gaussians.
#pragma once

#include <cstdint>

#include "../common/constants.h"
#include "simd.h"

namespace smnm {

SMNM_INLINE IntLanes clamp(IntLanes v, int most) {
  v = v > most ? IntLanes{} + most : v;
  return v < -most ? IntLanes{} - most : v;
}

// Divides the sums of a pass by the L2 norm of its taps, rounds half up, and clamps.
SMNM_INLINE FloatLanes rescale(FloatLanes sum) {
  const IntLanes v = (__builtin_convertvector(sum, IntLanes) + kTapUnit / 2) >> kTapShift;
  return __builtin_convertvector(clamp(v, kMaxSignal), FloatLanes);
}

// Nonzero taps around the centre: weight[k] multiplies the input at distance k - before. A filter
// without taps has no outputs.
struct RowFilter {
  const float* weight;
  int64_t count;
  int64_t before;
  float* out;
};

// This many values behind the last input must be readable. They may hold anything.
constexpr int64_t kRowSlack = 32;

// Floats of scratch that filter_rows needs.
int64_t filter_rows_scratch(int64_t side, int64_t n_out);

// `n_rows` circular rows of `side` values each; the first `n_out` (a multiple of kLanes) outputs of
// each. The taps of `inner` lie within those of `outer`.
void filter_rows(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out,
                 const RowFilter& outer, const RowFilter& inner, float* scratch);

}  // namespace smnm
