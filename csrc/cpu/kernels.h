// The kernels that are compiled once for every vector path. All arithmetic is exact, so the paths
// agree bit for bit.
//
// A path is a file kernels_PATH.cpp. It sets the compiler's target and the number of lanes, and
// includes kernels_of_path.h, which holds the code.
#pragma once

#include <cstdint>
#include <memory>

#include "dispersion.h"
#include "noise_field.h"
#include "rbn_few.h"

namespace smnm {

struct Kernels {
  std::unique_ptr<NoiseMaker> (*noise_maker)(const Grid& grid, const NoiseTable& table);

  // visible[i] says whether keys[i] is among the n_keep largest; of equal keys, lower indices come
  // first.
  void (*threshold_ints)(const int32_t* keys, int64_t n, int64_t n_keep, bool* visible);
  void (*threshold_longs)(const int64_t* keys, int64_t n, int64_t n_keep, bool* visible);

  // Repeats a frame's mask of n tokens, n_keep of them visible, over `frames`, and writes the
  // indices of the visible tokens and the inverse of the order [visible ascending, masked
  // ascending]. `frame` may be the first n values of `visible`.
  void (*write_masks)(const bool* frame, int64_t n, int64_t n_keep, int64_t frames, bool* visible,
                      int64_t* ids_keep, int64_t* ids_restore);

  // The dispersion of the patch that begins at `first`. `scratch` has room for its values.
  float (*dispersion)(const PatchShape& shape, const float* first, int32_t* scratch);

  // A sweep of Algorithm 1.
  void (*sweep_few)(FewMasks& masks, const RbnVisits& visits);
};

// Those of vector_path().
const Kernels& kernels();

extern const Kernels kBaselineKernels, kAvx2Kernels, kAvxVnniKernels, kAvx512Kernels,
    kAvx512VnniKernels;

}  // namespace smnm
