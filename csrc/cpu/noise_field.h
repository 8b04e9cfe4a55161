// Integer noise fields on the CPU, as smnm_kernels.reference defines them.
#pragma once

#include <cstdint>
#include <memory>

namespace smnm {

struct Grid {
  int64_t t, h, w;
  int64_t size() const { return t * h * w; }
};

// The integers of smnm_kernels.tables.noise.NoiseTable. White noise has no taps.
struct NoiseTable {
  Grid torus;
  const int16_t* taps;   // [n_levels, torus.t + torus.h + torus.w]
  const int16_t* pairs;  // [n_pairs, 3]
  const float* scale;    // [n_pairs]
  int64_t n_pairs;
  const int16_t* quantiles;  // [kNQuantiles]
  bool white() const { return n_pairs == 0; }
};

// Makes one field at a time; holds the buffers of one thread.
class NoiseMaker {
 public:
  NoiseMaker(const Grid& grid, const NoiseTable& table);
  // Writes the field to `out`, which has room for grid.size() + kLanes values, and returns the
  // factor that gives it unit variance.
  float make(int64_t seed, int64_t sample_id, int32_t* out);

 private:
  Grid grid_;
  NoiseTable table_;
  int64_t row_;  // floats per filtered row: grid.w rounded up to whole vectors
  int64_t n_blocks_ = 0;
  std::unique_ptr<int16_t[]> white_;
  std::unique_ptr<float[]> scratch_, along_w_[2], along_h_, total_[2];
};

}  // namespace smnm
