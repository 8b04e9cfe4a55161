// The dispersion of a patch, in one path's code.

namespace smnm {
namespace {

typedef float FloatLanes __attribute__((vector_size(SMNM_LANES * sizeof(float))));

// Multiples of 1 / unit, rounded down and clamped; what is no number is the lowest.
template <class Ints, class Floats>
SMNM_INLINE Ints quantised(Floats value, Floats unit, Floats most) {
  value *= unit;
  value = value > -most ? value : -most;
  value = value < most ? value : most;
  const Ints cut = __builtin_convertvector(value, Ints);
  return cut + (value < __builtin_convertvector(cut, Floats));  // -1 where cutting rounded up
}

// Sums of quantised values. Each lane of 32 bits takes so many of them.
constexpr int kAdditions = 16;

struct Sum {
  IntLanes lanes = {};
  int additions = 0;
  int64_t flushed = 0;

  SMNM_INLINE void add(const IntLanes& values) {
    lanes += values;
    if (++additions == kAdditions) flush();
  }
  SMNM_INLINE void flush() {
    for (int i = 0; i < SMNM_LANES; ++i) flushed += lanes[i];
    lanes = IntLanes{};
    additions = 0;
  }
};

// Fills `out` with the patch's values and returns their sum.
SMNM_INLINE int64_t quantise_patch(const PatchShape& shape, const float* first, float unit,
                                   float most, int32_t* out) {
  typedef int32_t One __attribute__((vector_size(sizeof(int32_t))));
  typedef float OneFloat __attribute__((vector_size(sizeof(float))));
  Sum sum;
  for (int64_t c = 0; c < shape.channels; ++c) {
    for (int64_t t = 0; t < shape.frames; ++t) {
      for (int64_t y = 0; y < shape.height; ++y, out += shape.width) {
        const float* row =
            first + c * shape.strides[0] + t * shape.strides[1] + y * shape.strides[2];
        int64_t x = 0;
        for (; x + SMNM_LANES <= shape.width; x += SMNM_LANES) {
          const auto values = quantised<IntLanes>(load<FloatLanes>(row + x), FloatLanes{} + unit,
                                                  FloatLanes{} + most);
          store(out + x, values);
          sum.add(values);
        }
        for (; x < shape.width; ++x) {
          out[x] = quantised<One>(OneFloat{row[x]}, OneFloat{unit}, OneFloat{most})[0];
          sum.flushed += out[x];
        }
      }
    }
  }
  sum.flush();
  return sum.flushed;
}

// n * A - c * S of the values' sum S, and of sum A and number c of those above the mean.
SMNM_INLINE int64_t deviation(const int32_t* values, int64_t n, int64_t sum, int32_t mean) {
  const IntLanes means = IntLanes{} + mean;
  Sum above;
  IntLanes counts = {};  // negative
  int64_t count = 0, i = 0;
  for (; i + SMNM_LANES <= n; i += SMNM_LANES) {
    const auto lanes = load<IntLanes>(values + i);
    const IntLanes is_above = lanes > means;
    above.add(lanes & is_above);
    counts += is_above;
  }
  for (; i < n; ++i) {
    if (values[i] <= mean) continue;
    above.flushed += values[i];
    ++count;
  }
  above.flush();
  for (int lane = 0; lane < SMNM_LANES; ++lane) count -= counts[lane];
  return n * above.flushed - count * sum;
}

SMNM_INLINE int64_t squares(const int32_t* values, int64_t n, int32_t mean) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t difference = values[i] - mean;
    sum += difference * difference;
  }
  return sum;
}

// `scratch` has room for the patch.
float dispersion(const PatchShape& shape, const float* first, int32_t* scratch) {
  const int64_t n = shape.size();
  const auto unit =
      static_cast<float>(1 << (shape.variance ? kVarianceUnitBits : kDeviationUnitBits));
  const int64_t sum = quantise_patch(shape, first, unit, unit * (1 << kMaxValueBits), scratch);
  const auto mean = static_cast<int32_t>(sum >= 0 ? sum / n : -((n - 1 - sum) / n));
  return static_cast<float>(shape.variance ? squares(scratch, n, mean)
                                           : deviation(scratch, n, sum, mean));
}

}  // namespace
}  // namespace smnm
