// How much the values of a patch differ, as smnm_kernels/reference/dispersion.py defines it.
#pragma once

#include <cstdint>

namespace smnm {

// A patch in the memory of a sample: `rows` runs of `width` values. Run (c, t, y) begins at
// c * strides[0] + t * strides[1] + y * strides[2] behind the patch's first value.
struct PatchShape {
  int64_t channels, frames, height, width;
  int64_t strides[3];
  bool variance;  // the metric, else the mean absolute deviation
  int64_t size() const { return channels * frames * height * width; }
};

}  // namespace smnm
