// Integer noise fields on the CPU, as smnm_kernels.reference defines them.
#pragma once

#include <cstdint>

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

// Values behind a field that may be written over.
constexpr int64_t kFieldSlack = 16;

// Makes one field at a time; holds the buffers of one thread.
class NoiseMaker {
 public:
  virtual ~NoiseMaker() = default;
  // Writes the field to `out`, which has room for grid.size() + kFieldSlack values, and returns the
  // factor that gives it unit variance.
  virtual float make(int64_t seed, int64_t sample_id, int32_t* out) = 0;
};

}  // namespace smnm
