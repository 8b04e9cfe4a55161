// A field filtered in 16-bit integers. The signal fits them (it is at most 1500), and one
// instruction multiplies a vector of values by taps and adds the products of neighbours, exactly,
// to half as many sums.
//
// Neighbours are taken as they lie in memory, so one read serves an even output, whose taps are
// paired (0, 1), (2, 3), ..., and the odd one behind it, whose taps are paired (-1, 0), (1, 2), ...
#include "pair_lanes.h"
#include "taps.h"

namespace smnm {
namespace {

typedef int16_t Signal;
typedef int32_t Total;
constexpr int64_t kLanes = 2 * SMNM_LANES;  // values of a vector

SMNM_INLINE IntLanes read(const int16_t* from) { return load<IntLanes>(from); }

// Divides the sums of a pass by the L2 norm of its taps, rounds half up, and clamps. Each eight
// values lie in the order 0 2 4 6 1 3 5 7, between passes, too: to interleave two rows splits them
// into even and odd ones again.
SMNM_INLINE IntLanes rescaled(IntLanes even, IntLanes odd) {
  return pack((even + kTapUnit / 2) >> kTapShift, (odd + kTapUnit / 2) >> kTapShift, kMaxSignal);
}

// Taps in pairs, the first of a pair in the lower half of a number. Reads number `begin` to `end`
// have taps that are not zero.
struct PairedTaps {
  // The first tap belongs to input number `first`, and there are `n_inputs` inputs.
  PairedTaps(const Taps& taps, int64_t first, int64_t n_inputs) {
    const int64_t n = n_inputs / 2 + 1;
    both.resize(2 * n);
    for (int64_t m = 0; m < n; ++m) {
      both[2 * m] = tap_pair(taps, 2 * m - first);
      both[2 * m + 1] = tap_pair(taps, 2 * m - 1 - first);
    }
    if (taps.count() > 0) {
      begin = first / 2;
      end = std::min(n, (first + taps.count()) / 2 + 1);
    }
  }

  int64_t count() const { return static_cast<int64_t>(both.size()) / 2; }
  SMNM_INLINE IntLanes even(int64_t m) const { return IntLanes{} + both[2 * m]; }
  SMNM_INLINE IntLanes odd(int64_t m) const { return IntLanes{} + both[2 * m + 1]; }

  std::vector<int32_t> both;  // of even outputs and of odd ones, in turn
  int64_t begin = 0, end = 0;
};

constexpr int kRows = 2;  // filtered together along w; of more, the sums do not fit in registers

// To the sums of kRows rows, the products of reads number `from` to `to`.
SMNM_INLINE void add_products(const int16_t* start, int64_t pitch, const PairedTaps& taps,
                              int64_t from, int64_t to, IntLanes (&even)[kRows],
                              IntLanes (&odd)[kRows]) {
  for (int64_t m = from; m < to; ++m) {
    for (int r = 0; r < kRows; ++r) {
      const IntLanes values = read(start + r * pitch + 2 * m);
      even[r] = multiply_add(even[r], values, taps.even(m));
      odd[r] = multiply_add(odd[r], values, taps.odd(m));
    }
  }
}

// The pass along the contiguous axis, for both chains. `n_rows` circular rows of `side` values
// each; the first `n_out` (a multiple of kLanes) outputs of each. The taps of `inner` lie within
// those of `outer`; without taps it has no outputs.
void filter_rows(const int16_t* in, int64_t n_rows, int64_t side, int64_t n_out, const Taps& outer,
                 int16_t* outer_out, const Taps& inner, int16_t* inner_out, int16_t* wide) {
  const int64_t pitch = wide_pitch(side, n_out), end = inputs_end(side, n_out, outer);
  const PairedTaps taps(outer, 0, outer.count());
  const PairedTaps inner_taps(inner, outer.before - inner.before, outer.count());
  for (int64_t batch = 0; batch < n_rows; batch += kWideRows) {
    const int64_t batch_end = std::min(batch + kWideRows, n_rows);
    for (int64_t r = batch; r < batch_end; ++r) {
      for (int64_t at = 0; at < end; at += side) {
        // A copy may run over by part of a vector; the next copy writes over that.
        for (int64_t x = 0; x < side; x += kLanes) {
          store(wide + (r - batch) * pitch + at + x, read(in + r * side + x));
        }
      }
    }
    for (int64_t first = batch; first < batch_end; first += kRows) {
      for (int64_t x = 0; x < n_out; x += kLanes) {
        const int16_t* start = wide + (first - batch) * pitch + side - outer.before + x;
        IntLanes even[kRows], odd[kRows], inner_even[kRows], inner_odd[kRows];
        for (int r = 0; r < kRows; ++r) {
          even[r] = odd[r] = inner_even[r] = inner_odd[r] = IntLanes{};
        }
        add_products(start, pitch, taps, 0, inner_taps.begin, even, odd);
        for (int64_t m = inner_taps.begin; m < inner_taps.end; ++m) {
          for (int r = 0; r < kRows; ++r) {
            const IntLanes values = read(start + r * pitch + 2 * m);
            even[r] = multiply_add(even[r], values, taps.even(m));
            odd[r] = multiply_add(odd[r], values, taps.odd(m));
            inner_even[r] = multiply_add(inner_even[r], values, inner_taps.even(m));
            inner_odd[r] = multiply_add(inner_odd[r], values, inner_taps.odd(m));
          }
        }
        add_products(start, pitch, taps, inner_taps.end, taps.count(), even, odd);
        for (int r = 0; r < kRows && first + r < batch_end; ++r) {
          const int64_t to = (first + r) * n_out + x;
          store(outer_out + to, rescaled(even[r], odd[r]));
          if (inner.count() > 0) store(inner_out + to, rescaled(inner_even[r], inner_odd[r]));
        }
      }
    }
  }
}

// A pass across `side` circular rows of `stride` values (a multiple of kLanes), for its first n_out
// outputs.
class ColumnFilter {
 public:
  ColumnFilter(const Taps& taps, int64_t side, int64_t stride, int64_t n_out)
      : taps_(taps, 0, taps.count()),
        side_(side),
        stride_(stride),
        n_out_(n_out),
        first_row_((side - taps.before) % side),
        n_pairs_(round_up(n_out, kOutputs) / 2 + taps_.count()),
        pairs_(new IntLanes[2 * n_pairs_]) {}

  // The sums of the last pass, or those of another, rescaled to 16 bits.
  template <bool last, class Out>
  void run(const int16_t* in, Out* out) {
    for (int64_t x = 0; x < stride_; x += kLanes) {
      pair_rows(in + x);
      for (int64_t first = 0; first < n_out_; first += kOutputs) {
        IntLanes even[kOutputs], odd[kOutputs];  // columns
        for (int r = 0; r < kOutputs; ++r) even[r] = odd[r] = IntLanes{};
        const IntLanes* pair = pairs_.get() + first;
        for (int64_t m = 0; m < taps_.count(); ++m, pair += 2) {
          for (int r = 0; r < kOutputs; ++r) {
            const IntLanes weights = r % 2 == 0 ? taps_.even(m) : taps_.odd(m);
            even[r] = multiply_add(even[r], pair[r / 2 * 2], weights);
            odd[r] = multiply_add(odd[r], pair[r / 2 * 2 + 1], weights);
          }
        }
        for (int r = 0; r < kOutputs && first + r < n_out_; ++r) {
          Out* to = out + (first + r) * stride_ + x;
          if constexpr (last) {
            store_sums(to, even[r], odd[r]);
          } else {
            store(to, rescaled(even[r], odd[r]));
          }
        }
      }
    }
  }

 private:
  static constexpr int kOutputs = 4;  // at a time

  // IntLanes of neighbouring rows, made once for all outputs of these columns: even columns, odd
  // ones.
  void pair_rows(const int16_t* in) {
    // Locals: members would be read again after each store.
    const int64_t side = side_, stride = stride_, n_pairs = n_pairs_;
    IntLanes* pairs = pairs_.get();
    int64_t row = first_row_;
    for (int64_t j = 0; j < n_pairs; ++j) {
      const IntLanes upper = read(in + row * stride);
      if (++row == side) row = 0;
      const IntLanes lower = read(in + row * stride);
      if (++row == side) row = 0;
      pairs[2 * j] = interleave_low(upper, lower);
      pairs[2 * j + 1] = interleave_high(upper, lower);
    }
  }

  PairedTaps taps_;
  int64_t side_, stride_, n_out_, first_row_, n_pairs_;
  std::unique_ptr<IntLanes[]> pairs_;
};

}  // namespace
}  // namespace smnm
