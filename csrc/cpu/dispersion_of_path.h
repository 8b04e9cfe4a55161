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

// At most this many additions of quantised values keep 32 bits.
constexpr int64_t kAdditions = 16;

SMNM_INLINE int64_t sum_of_lanes(const IntLanes& lanes) {
  int64_t sum = 0;
  for (int i = 0; i < SMNM_LANES; ++i) sum += lanes[i];
  return sum;
}

// Sums of each(lanes or value) over n values.
template <class Each>
SMNM_INLINE int64_t sum_over(const int32_t* values, int64_t n, const Each& each) {
  int64_t sum = 0, i = 0;
  while (i + SMNM_LANES <= n) {
    IntLanes lanes = {};
    const int64_t end = std::min(n, i + kAdditions * SMNM_LANES);
    for (; i + SMNM_LANES <= end; i += SMNM_LANES) lanes += each(load<IntLanes>(values + i));
    sum += sum_of_lanes(lanes);
  }
  IntLanes last = {};
  for (int64_t rest = i; rest < n; ++rest) last[rest - i] = values[rest];
  const IntLanes of_last = each(last);
  for (int64_t rest = i; rest < n; ++rest) sum += of_last[rest - i];
  return sum;
}

void quantise_patch(const PatchShape& shape, const float* first, float unit, float most,
                    int32_t* out) {
  typedef int32_t One __attribute__((vector_size(sizeof(int32_t))));
  typedef float OneFloat __attribute__((vector_size(sizeof(float))));
  for (int64_t c = 0; c < shape.channels; ++c) {
    for (int64_t t = 0; t < shape.frames; ++t) {
      for (int64_t y = 0; y < shape.height; ++y, out += shape.width) {
        const float* row =
            first + c * shape.strides[0] + t * shape.strides[1] + y * shape.strides[2];
        int64_t x = 0;
        for (; x + SMNM_LANES <= shape.width; x += SMNM_LANES) {
          store(out + x, quantised<IntLanes>(load<FloatLanes>(row + x), FloatLanes{} + unit,
                                             FloatLanes{} + most));
        }
        for (; x < shape.width; ++x) {
          out[x] = quantised<One>(OneFloat{row[x]}, OneFloat{unit}, OneFloat{most})[0];
        }
      }
    }
  }
}

// `scratch` has room for the patch.
float dispersion(const PatchShape& shape, const float* first, int32_t* scratch) {
  const int64_t n = shape.size();
  const int unit_bits = shape.variance ? kVarianceUnitBits : kDeviationUnitBits;
  const auto unit = static_cast<float>(1 << unit_bits);
  quantise_patch(shape, first, unit, unit * (1 << kMaxValueBits), scratch);
  const int64_t sum = sum_over(scratch, n, [](const IntLanes& v) { return v; });
  const auto mean = static_cast<int32_t>(sum >= 0 ? sum / n : -((n - 1 - sum) / n));
  if (shape.variance) {
    int64_t squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t difference = scratch[i] - mean;
      squares += difference * difference;
    }
    return static_cast<float>(squares);
  }
  const IntLanes means = IntLanes{} + mean;
  const int64_t above = sum_over(scratch, n, [&](const IntLanes& v) { return v & (v > means); });
  const int64_t count = -sum_over(scratch, n, [&](const IntLanes& v) { return v > means; });
  return static_cast<float>(n * above - count * sum);
}

}  // namespace
}  // namespace smnm
