// The CPU fields. Integers travel in float32: every sum stays below 2^24 (the signal is at most
// 1500, and taps of L2 norm 2048 and sigma <= 8 have an L1 norm below 11000), so multiply-adds are
// exact in any order and at any vector width.
#include "noise_field.h"

#include <algorithm>
#include <vector>

#include "filter_rows.h"
#include "philox_blocks.h"
#include "simd.h"

namespace smnm {
namespace {

// Nonzero taps around the centre: weight[k] multiplies the input at distance k - before.
struct Taps {
  std::vector<float> weight;
  int64_t before;
  int64_t count() const { return static_cast<int64_t>(weight.size()); }
};

Taps nonzero_taps(const int16_t* circular, int64_t side, int gain) {
  const auto tap = [&](int64_t distance) {
    return (circular[(distance % side + side) % side] * gain + kTapUnit / 2) >> kTapShift;
  };
  int64_t reach = 0;
  for (int64_t d = 1; d <= side / 2; ++d) {
    if (tap(d) != 0) reach = d;
  }
  const int64_t before = std::min(reach, (side - 1) / 2);
  Taps taps{{}, before};
  for (int64_t d = -before; d <= reach; ++d) taps.weight.push_back(static_cast<float>(tap(d)));
  return taps;
}

constexpr int64_t kBlocks = 64;  // Philox blocks drawn at a time

// Four segments of q odd integers of kWhiteBits random bits.
SMNM_CLONES
void fill_white_field(const PhiloxSequence& sequence, int64_t n, int32_t* out) {
  const int64_t q = (n + 3) / 4;
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    for (int j = 0; j < 4; ++j) {
      const int64_t room = std::min(q - b, n - j * q - b);
      const int64_t count = std::min(kBlocks, room);
      for (int64_t i = 0; i < count; ++i) {
        const auto bits = static_cast<int32_t>(words[j * kBlocks + i] >> (32 - kWhiteBits));
        out[j * q + b + i] = 2 * bits + 1 - (1 << kWhiteBits);
      }
    }
  }
}

// Eight segments of q quantiles: white_values() of the reference.
SMNM_CLONES
void fill_quantiles(const PhiloxSequence& sequence, int64_t q, const int16_t* quantiles,
                    int16_t* out) {
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    const int64_t count = std::min(kBlocks, q - b);
    for (int j = 0; j < 4; ++j) {
      const uint32_t* word = words + j * kBlocks;
      int16_t* low = out + 2 * j * q + b;
      int16_t* high = low + q;
      for (int64_t i = 0; i < count; ++i) {
        low[i] = quantiles[word[i] >> 4 & 0xFFF];
        high[i] = quantiles[word[i] >> 20];
      }
    }
  }
}

// One pass across rows of `stride` contiguous floats (a multiple of kLanes): output row i is the
// sum of weight[k] * in[offset[i + k]], for i < n_out.
template <bool last>
SMNM_INLINE void filter_across(const float* in, const int64_t* offset, int64_t stride,
                               const float* weight, int64_t count, int64_t n_out, float* out) {
  constexpr int kRows = 4;
  for (int64_t first = 0; first < n_out; first += kRows) {
    for (int64_t x = 0; x < stride; x += kLanes) {
      FloatLanes sum[kRows] = {};
      for (int64_t k = 0; k < count; ++k) {
        for (int r = 0; r < kRows; ++r) {
          sum[r] += weight[k] * load<FloatLanes>(in + x + offset[first + k + r]);
        }
      }
      for (int r = 0; r < kRows && first + r < n_out; ++r) {
        store(out + (first + r) * stride + x, last ? sum[r] : rescale(sum[r]));
      }
    }
  }
}

SMNM_CLONES
void filter_across_rescaled(const float* in, const int64_t* offset, int64_t stride,
                            const float* weight, int64_t count, int64_t n_out, float* out) {
  filter_across<false>(in, offset, stride, weight, count, n_out, out);
}

SMNM_CLONES
void filter_across_last(const float* in, const int64_t* offset, int64_t stride, const float* weight,
                        int64_t count, int64_t n_out, float* out) {
  filter_across<true>(in, offset, stride, weight, count, n_out, out);
}

// Offsets of the rows that outputs 0 .. n_out + 3 read, from `before` rows ahead of the first.
std::vector<int64_t> circular_offsets(const Taps& taps, int64_t side, int64_t stride,
                                      int64_t n_out) {
  std::vector<int64_t> offset(n_out + taps.count() + 3);
  int64_t row = (side - taps.before) % side;
  for (int64_t& o : offset) {
    o = row * stride;
    if (++row == side) row = 0;
  }
  return offset;
}

// out = chain1 - chain2, clamped, without the padding of the rows. A difference beyond 2^24 may be
// rounded first, which changes nothing, because it is clamped.
SMNM_CLONES
void difference(const float* chain1, const float* chain2, int64_t n_rows, int64_t row,
                int64_t width, int32_t* out) {
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t x = 0; x < row; x += kLanes) {
      FloatLanes v = load<FloatLanes>(chain1 + r * row + x);
      if (chain2 != nullptr) v -= load<FloatLanes>(chain2 + r * row + x);
      // The padding of a row is written over by the next row.
      store(out + r * width + x, clamp(__builtin_convertvector(v, IntLanes), kMaxField));
    }
  }
}

}  // namespace

NoiseMaker::NoiseMaker(const Grid& grid, const NoiseTable& table)
    : grid_(grid), table_(table), row_(round_up(grid.w, kLanes)) {
  if (table.white()) return;
  const Grid& p = table.torus;
  n_blocks_ = p.t > 1 ? (p.t + 7) / 8 * p.h * p.w : (p.h + 7) / 8 * p.w;
  white_.reset(new int16_t[8 * n_blocks_ + kRowSlack]);
  scratch_.reset(new float[filter_rows_scratch(p.w, row_)]);
  for (int chain = 0; chain < 2; ++chain) {
    along_w_[chain].reset(new float[p.t * p.h * row_]);
    total_[chain].reset(new float[grid.t * grid.h * row_]);
  }
  if (p.t > 1) along_h_.reset(new float[p.t * grid.h * row_]);
}

float NoiseMaker::make(int64_t seed, int64_t sample_id, int32_t* out) {
  const PhiloxSequence words = philox_sequence(seed, kNoise, sample_id);
  if (table_.white()) {
    fill_white_field(words, grid_.size(), out);
    return kWhiteScale;
  }
  uint32_t drawn[4];
  philox_block(philox_sequence(seed, kSigma, sample_id), 0, drawn);
  const int64_t pair = static_cast<int64_t>(uint64_t{drawn[0]} * table_.n_pairs >> 32);
  const int16_t* levels = table_.pairs + 3 * pair;
  const int n_chains = levels[1] >= 0 ? 2 : 1;

  const Grid& p = table_.torus;
  fill_quantiles(words, n_blocks_, table_.quantiles, white_.get());
  const int16_t* along_t[2];
  Taps w[2];
  RowFilter filters[2] = {};
  for (int chain = 0; chain < n_chains; ++chain) {
    along_t[chain] = table_.taps + levels[chain] * (p.t + p.h + p.w);
    w[chain] = nonzero_taps(along_t[chain] + p.t + p.h, p.w, kTapUnit);
    filters[chain] = {w[chain].weight.data(), w[chain].count(), w[chain].before,
                      along_w_[chain].get()};
  }
  const bool second_is_wider = filters[1].count >= filters[0].count;
  filter_rows(white_.get(), p.t * p.h, p.w, row_, filters[second_is_wider],
              filters[!second_is_wider], scratch_.get());

  const bool flat = p.t == 1;
  const int64_t plane = grid_.h * row_;
  for (int chain = 0; chain < n_chains; ++chain) {
    const int gain = chain == 0 ? kTapUnit : levels[2];
    const Taps h = nonzero_taps(along_t[chain] + p.t, p.h, flat ? gain : kTapUnit);
    const std::vector<int64_t> h_rows = circular_offsets(h, p.h, row_, grid_.h);
    if (flat) {
      filter_across_last(along_w_[chain].get(), h_rows.data(), row_, h.weight.data(), h.count(),
                         grid_.h, total_[chain].get());
      continue;
    }
    for (int64_t t = 0; t < p.t; ++t) {
      filter_across_rescaled(along_w_[chain].get() + t * p.h * row_, h_rows.data(), row_,
                             h.weight.data(), h.count(), grid_.h, along_h_.get() + t * plane);
    }
    const Taps t = nonzero_taps(along_t[chain], p.t, gain);
    filter_across_last(along_h_.get(), circular_offsets(t, p.t, plane, grid_.t).data(), plane,
                       t.weight.data(), t.count(), grid_.t, total_[chain].get());
  }
  difference(total_[0].get(), n_chains == 2 ? total_[1].get() : nullptr, grid_.t * grid_.h, row_,
             grid_.w, out);
  return table_.scale[pair];
}

}  // namespace smnm
