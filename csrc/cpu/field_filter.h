// The passes of a field, on the signal, the filters and the lanes of one path: float_filter.h or
// pair_filter.h.

namespace smnm {
namespace {

// out = chain1 - chain2, clamped, without the padding of the rows. A difference of floats beyond
// 2^24 may be rounded first, which changes nothing, because it is clamped.
void write_difference(const Total* chain1, const Total* chain2, int64_t n_rows, int64_t row,
                      int64_t width, int32_t* out) {
  typedef Total Lanes __attribute__((vector_size(sizeof(IntLanes))));
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t x = 0; x < row; x += SMNM_LANES) {
      auto v = load<Lanes>(chain1 + r * row + x);
      if (chain2 != nullptr) v -= load<Lanes>(chain2 + r * row + x);
      // The padding of a row is written over by the next row.
      store(out + r * width + x, clamped(__builtin_convertvector(v, IntLanes), kMaxField));
    }
  }
}

// Filters one field at a time; holds the buffers.
class FieldFilter {
 public:
  FieldFilter(const Grid& grid, const NoiseTable& table)
      : grid_(grid), torus_(table.torus), row_(round_up(grid.w, kLanes)) {
    if (table.white()) return;
    const Grid& p = torus_;
    wide_.reset(new Signal[kWideRows * wide_pitch(p.w, row_)]);
    for (int chain = 0; chain < 2; ++chain) {
      along_w_[chain].reset(new Signal[p.t * p.h * row_]);
      total_[chain].reset(new Total[grid.t * grid.h * row_]);
    }
    if (p.t > 1) along_h_.reset(new Signal[p.t * grid.h * row_]);
  }

  // `white` holds the values of the torus and kRowSlack more.
  void run(const int16_t* white, const Chain* chains, int n_chains, int32_t* out) {
    const Grid& p = torus_;
    Taps w[2];
    for (int chain = 0; chain < n_chains; ++chain) {
      w[chain] = nonzero_taps(chains[chain].taps + p.t + p.h, p.w, kTapUnit);
    }
    const int outer = w[1].count() >= w[0].count(), inner = 1 - outer;
    filter_rows(white, p.t * p.h, p.w, row_, w[outer], along_w_[outer].get(), w[inner],
                along_w_[inner].get(), wide_.get());
    for (int chain = 0; chain < n_chains; ++chain) filter_columns(chain, chains[chain]);
    write_difference(total_[0].get(), n_chains == 2 ? total_[1].get() : nullptr, grid_.t * grid_.h,
                     row_, grid_.w, out);
  }

 private:
  // The passes along h and t.
  void filter_columns(int chain, const Chain& of) {
    const Grid& p = torus_;
    const bool flat = p.t == 1;
    const int64_t plane = grid_.h * row_;
    const Signal* from = along_w_[chain].get();
    Total* to = total_[chain].get();
    ColumnFilter along_h(nonzero_taps(of.taps + p.t, p.h, flat ? of.gain : kTapUnit), p.h, row_,
                         grid_.h);
    if (flat) {
      along_h.run<true>(from, to);
      return;
    }
    for (int64_t t = 0; t < p.t; ++t) {
      along_h.run<false>(from + t * p.h * row_, along_h_.get() + t * plane);
    }
    ColumnFilter(nonzero_taps(of.taps, p.t, of.gain), p.t, plane, grid_.t)
        .run<true>(along_h_.get(), to);
  }

  Grid grid_, torus_;
  int64_t row_;  // values of a filtered row: grid.w rounded up to whole vectors
  std::unique_ptr<Signal[]> wide_, along_w_[2], along_h_;
  std::unique_ptr<Total[]> total_[2];
};

}  // namespace
}  // namespace smnm
