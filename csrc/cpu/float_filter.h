// A field filtered in float32. Every sum stays below 2^24 (the signal is at most 1500, and taps of
// L2 norm 2048 and sigma <= 8 have an L1 norm below 11000), so multiply-adds are exact in any
// order. With AVX-512 VNNI the pass along the contiguous axis computes in pairs of 16-bit integers.
#include "taps.h"

namespace smnm {
namespace {

typedef float Signal;
typedef float Total;
constexpr int kLanes = SMNM_LANES;  // values of a vector
typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int16_t ShortLanes __attribute__((vector_size(kLanes * sizeof(int16_t))));

constexpr int kRows = 4;  // filtered together, which hides the latency of the multiply-adds

// Divides the sums of a pass by the L2 norm of its taps, rounds half up, clamps and writes them.
SMNM_INLINE void store_rescaled(float* to, const FloatLanes& sum) {
  const IntLanes v = (__builtin_convertvector(sum, IntLanes) + kTapUnit / 2) >> kTapShift;
  store(to, __builtin_convertvector(clamped(v, kMaxSignal), FloatLanes));
}

struct FloatTaps {
  explicit FloatTaps(const Taps& taps)
      : weight(taps.weight.begin(), taps.weight.end()), before(taps.before) {}
  std::vector<float> weight;
  int64_t before;
  int64_t count() const { return static_cast<int64_t>(weight.size()); }
};

// The pass along the contiguous axis, for both chains, so that they share their reads: each row is
// read once for each tap, and mostly unaligned. `n_rows` circular rows of `side` values each; the
// first `n_out` (a multiple of kLanes) outputs of each. The taps of `inner` lie within those of
// `outer`; without taps it has no outputs.
#ifndef SMNM_AVX512_VNNI

void filter_rows(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out, const Taps& outer,
                 float* outer_out, const Taps& inner, float* inner_out, float* wide) {
  const int64_t pitch = wide_pitch(side, n_out), end = inputs_end(side, n_out, outer);
  const FloatTaps outer_taps(outer), inner_taps(inner);
  const int64_t inner_begin = outer.before - inner.before;
  const int64_t inner_end = inner_begin + inner.count();
  for (int64_t batch = 0; batch < n_rows; batch += kWideRows) {
    const int64_t batch_end = std::min(batch + kWideRows, n_rows);
    for (int64_t r = batch; r < batch_end; ++r) {
      for (int64_t at = 0; at < end; at += side) {
        // A copy may run over by part of a vector; the next copy writes over that.
        for (int64_t x = 0; x < side; x += kLanes) {
          store(wide + (r - batch) * pitch + at + x,
                __builtin_convertvector(load<ShortLanes>(in + r * side + x), FloatLanes));
        }
      }
    }
    for (int64_t first = batch; first < batch_end; first += kRows) {
      const float* start = wide + (first - batch) * pitch + side - outer.before;
      for (int64_t x = 0; x < n_out; x += kLanes) {
        FloatLanes sum[kRows] = {}, inner_sum[kRows] = {};
        for (int64_t k = 0; k < outer.count(); ++k) {
          const float weight = outer_taps.weight[k];
          if (k >= inner_begin && k < inner_end) {
            const float inner_weight = inner_taps.weight[k - inner_begin];
            for (int r = 0; r < kRows; ++r) {
              const FloatLanes value = load<FloatLanes>(start + r * pitch + x + k);
              sum[r] += weight * value;
              inner_sum[r] += inner_weight * value;
            }
          } else {
            for (int r = 0; r < kRows; ++r) {
              sum[r] += weight * load<FloatLanes>(start + r * pitch + x + k);
            }
          }
        }
        for (int r = 0; r < kRows && first + r < batch_end; ++r) {
          const int64_t to = (first + r) * n_out + x;
          store_rescaled(outer_out + to, sum[r]);
          if (inner.count() > 0) store_rescaled(inner_out + to, inner_sum[r]);
        }
      }
    }
  }
}

#else  // Products of 16-bit pairs: one read serves two taps.

// For each m, taps 2m and 2m + 1 in one number. The filter's first tap has number `begin`.
std::vector<int32_t> paired_taps(const Taps& filter, int64_t begin, int64_t n_pairs) {
  std::vector<int32_t> pairs(n_pairs);
  for (int64_t m = 0; m < n_pairs; ++m) pairs[m] = tap_pair(filter, 2 * m - begin);
  return pairs;
}

SMNM_INLINE void store_rescaled(float* to, __m512i sum) {
  const __m512i half = _mm512_set1_epi32(kTapUnit / 2), most = _mm512_set1_epi32(kMaxSignal);
  const __m512i v = _mm512_srai_epi32(_mm512_add_epi32(sum, half), kTapShift);
  const __m512i least = _mm512_sub_epi32(_mm512_setzero_si512(), most);
  _mm512_storeu_ps(to, _mm512_cvtepi32_ps(_mm512_max_epi32(_mm512_min_epi32(v, most), least)));
}

void filter_rows(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out, const Taps& outer,
                 float* outer_out, const Taps& inner, float* inner_out, float* scratch) {
  auto* wide = reinterpret_cast<int16_t*>(scratch);
  constexpr int64_t kShorts = 32;  // of a vector
  const int64_t pitch = wide_pitch(side, n_out), end = inputs_end(side, n_out, outer);
  const int64_t n_pairs = (outer.count() + 1) / 2, inner_begin = outer.before - inner.before;
  const int64_t inner_first = inner_begin / 2;
  const int64_t inner_last = (inner_begin + inner.count() + 1) / 2;
  const std::vector<int32_t> outer_pairs = paired_taps(outer, 0, n_pairs);
  const std::vector<int32_t> inner_pairs = paired_taps(inner, inner_begin, n_pairs);
  // Lane i of 32 bits takes values i and i + 1.
  int16_t neighbours[kShorts];
  for (int64_t i = 0; i < kShorts; ++i) neighbours[i] = static_cast<int16_t>((i + 1) / 2);
  const __m512i pick = _mm512_loadu_si512(neighbours);
  for (int64_t batch = 0; batch < n_rows; batch += kWideRows) {
    const int64_t batch_end = std::min(batch + kWideRows, n_rows);
    for (int64_t r = batch; r < batch_end; ++r) {
      for (int64_t at = 0; at < end; at += side) {
        for (int64_t x = 0; x < side; x += kShorts) {
          _mm512_storeu_si512(wide + (r - batch) * pitch + at + x,
                              _mm512_loadu_si512(in + r * side + x));
        }
      }
    }
    for (int64_t first = batch; first < batch_end; first += kRows) {
      const int16_t* start = wide + (first - batch) * pitch + side - outer.before;
      for (int64_t x = 0; x < n_out; x += kLanes) {
        __m512i sum[kRows], inner_sum[kRows];
        for (int r = 0; r < kRows; ++r) sum[r] = inner_sum[r] = _mm512_setzero_si512();
        for (int64_t m = 0; m < n_pairs; ++m) {
          __m512i values[kRows];
          for (int r = 0; r < kRows; ++r) {
            const int16_t* from = start + r * pitch + x + 2 * m;
            values[r] = _mm512_permutexvar_epi16(pick, _mm512_loadu_si512(from));
          }
          const __m512i weights = _mm512_set1_epi32(outer_pairs[m]);
          for (int r = 0; r < kRows; ++r) {
            sum[r] = _mm512_dpwssd_epi32(sum[r], values[r], weights);
          }
          if (m < inner_first || m >= inner_last) continue;
          const __m512i inner_weights = _mm512_set1_epi32(inner_pairs[m]);
          for (int r = 0; r < kRows; ++r) {
            inner_sum[r] = _mm512_dpwssd_epi32(inner_sum[r], values[r], inner_weights);
          }
        }
        for (int r = 0; r < kRows && first + r < batch_end; ++r) {
          const int64_t to = (first + r) * n_out + x;
          store_rescaled(outer_out + to, sum[r]);
          if (inner.count() > 0) store_rescaled(inner_out + to, inner_sum[r]);
        }
      }
    }
  }
}

#endif

// A pass across `side` circular rows of `stride` values (a multiple of kLanes), for its first n_out
// outputs.
class ColumnFilter {
 public:
  ColumnFilter(const Taps& taps, int64_t side, int64_t stride, int64_t n_out)
      : taps_(taps), stride_(stride), n_out_(n_out), offset_(n_out + taps.count() + kRows - 1) {
    int64_t row = (side - taps.before) % side;
    for (int64_t& offset : offset_) {
      offset = row * stride;
      if (++row == side) row = 0;
    }
  }

  // The sums of the last pass, or those of another, rescaled.
  template <bool last>
  void run(const float* in, float* out) const {
    const float* weight = taps_.weight.data();
    const int64_t count = taps_.count();
    for (int64_t first = 0; first < n_out_; first += kRows) {
      const int64_t* offset = offset_.data() + first;
      for (int64_t x = 0; x < stride_; x += kLanes) {
        FloatLanes sum[kRows] = {};
        for (int64_t k = 0; k < count; ++k) {
          for (int r = 0; r < kRows; ++r) {
            sum[r] += weight[k] * load<FloatLanes>(in + x + offset[k + r]);
          }
        }
        for (int r = 0; r < kRows && first + r < n_out_; ++r) {
          float* to = out + (first + r) * stride_ + x;
          if (last) {
            store(to, sum[r]);
          } else {
            store_rescaled(to, sum[r]);
          }
        }
      }
    }
  }

 private:
  FloatTaps taps_;
  int64_t stride_, n_out_;
  std::vector<int64_t> offset_;  // of the rows that outputs read, from `before` rows ahead on
};

}  // namespace
}  // namespace smnm
