// The time of this pass goes into reads: each row is read once for each tap, and mostly unaligned.
// So both filters share their reads. On machines with products of 16-bit pairs (AVX-512 VNNI), one
// read serves two taps.
#include "filter_rows.h"

#include <algorithm>
#include <vector>

#include "simd.h"

#ifdef SMNM_X86
#include <immintrin.h>
#endif

namespace smnm {
namespace {

constexpr int kRows = 4;  // filtered together, which hides the latency of the multiply-adds
// Rows that are copied together: so many that the first have left the store queue when they are
// read. A read spans several stores, and would wait for all of them to leave it.
constexpr int kWideRows = 16;

// A wide row holds copies of a circular row. Output 0 is at the first value of the second copy,
// because the taps before it reach back by at most half a row.
int64_t inputs_end(int64_t side, int64_t n_out, const RowFilter& outer) {
  return side + n_out + outer.count - outer.before;
}

// Elements of a wide row: the last copy begins before 1.5 * side + n_out, and runs over by part of
// a vector.
int64_t wide_pitch(int64_t side, int64_t n_out) { return n_out + 3 * side + kRowSlack; }

SMNM_CLONES
void filter_floats(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out,
                   const RowFilter& outer, const RowFilter& inner, float* wide) {
  typedef int16_t ShortLanes __attribute__((vector_size(kLanes * sizeof(int16_t))));
  const int64_t pitch = wide_pitch(side, n_out), end = inputs_end(side, n_out, outer);
  const int64_t inner_begin = outer.before - inner.before;
  const int64_t inner_end = inner_begin + inner.count;
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
        for (int64_t k = 0; k < outer.count; ++k) {
          const float weight = outer.weight[k];
          if (k >= inner_begin && k < inner_end) {
            const float inner_weight = inner.weight[k - inner_begin];
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
          store(outer.out + to, rescale(sum[r]));
          if (inner.count > 0) store(inner.out + to, rescale(inner_sum[r]));
        }
      }
    }
  }
}

#ifdef SMNM_X86

#define SMNM_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

// For each m, taps 2m and 2m + 1 in one number, the first in the lower half. The filter's first tap
// has number `begin`.
std::vector<int32_t> paired_taps(const RowFilter& filter, int64_t begin, int64_t n_pairs) {
  const auto tap = [&](int64_t k) {
    return k >= 0 && k < filter.count ? static_cast<int32_t>(filter.weight[k]) : 0;
  };
  std::vector<int32_t> pairs(n_pairs);
  for (int64_t m = 0; m < n_pairs; ++m) {
    const int64_t k = 2 * m - begin;
    pairs[m] = static_cast<int32_t>(static_cast<uint32_t>(tap(k + 1)) << 16 | (tap(k) & 0xFFFF));
  }
  return pairs;
}

SMNM_VNNI inline __m512 rescaled(__m512i sum) {
  const __m512i half = _mm512_set1_epi32(kTapUnit / 2), most = _mm512_set1_epi32(kMaxSignal);
  const __m512i v = _mm512_srai_epi32(_mm512_add_epi32(sum, half), kTapShift);
  const __m512i least = _mm512_sub_epi32(_mm512_setzero_si512(), most);
  return _mm512_cvtepi32_ps(_mm512_max_epi32(_mm512_min_epi32(v, most), least));
}

SMNM_VNNI void filter_pairs(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out,
                            const RowFilter& outer, const RowFilter& inner, int16_t* wide) {
  constexpr int64_t kShorts = 32;  // of a vector
  const int64_t pitch = wide_pitch(side, n_out), end = inputs_end(side, n_out, outer);
  const int64_t n_pairs = (outer.count + 1) / 2, inner_begin = outer.before - inner.before;
  const int64_t inner_first = inner_begin / 2;
  const int64_t inner_last = (inner_begin + inner.count + 1) / 2;
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
          _mm512_storeu_ps(outer.out + to, rescaled(sum[r]));
          if (inner.count > 0) _mm512_storeu_ps(inner.out + to, rescaled(inner_sum[r]));
        }
      }
    }
  }
}

#endif

}  // namespace

int64_t filter_rows_scratch(int64_t side, int64_t n_out) {
  return kWideRows * wide_pitch(side, n_out);
}

void filter_rows(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out,
                 const RowFilter& outer, const RowFilter& inner, float* scratch) {
#ifdef SMNM_X86
  static const bool pairs = SMNM_VECTORS >= 3 && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vnni");
  if (pairs) {
    filter_pairs(in, n_rows, side, n_out, outer, inner, reinterpret_cast<int16_t*>(scratch));
    return;
  }
#endif
  filter_floats(in, n_rows, side, n_out, outer, inner, scratch);
}

}  // namespace smnm
