// What a launch of the R-BN kernels needs that only the headers of csrc know, for Python.
#include <cstdint>
#include <cstring>

#include "rbn_rounds_state.h"

extern "C" {

size_t shape_bytes() { return sizeof(smnm::RoundsShape); }

// Writes the shape to `out` (shape_bytes() of them) and returns the bytes of a block's state.
size_t rounds_shape(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                    const int64_t* windows, int64_t n_windows, const int64_t* weights,
                    bool random_ties, void* out) {
  const smnm::RbnLines lines = smnm::rbn_lines(height, width, windows, n_windows, weights);
  const smnm::RoundsShape shape = smnm::rounds_shape(
      lines, height * width, width, n_candidates, n_keep, windows, n_windows, random_ties);
  std::memcpy(out, &shape, sizeof shape);
  return smnm::rounds_bytes(shape);
}
}
