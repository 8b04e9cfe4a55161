// The order of a bank, and its sweeps.
#include "rbn_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "philox_blocks.h"
#include "simd.h"

namespace smnm {
namespace {

// Sorts (random key << 32 | index): a radix sort by so many upper bits of the keys that few keys
// are equal in these, then an insertion sort, which has little left to do. Few keys take one digit
// of the radix sort, of as many values as there are keys.
void sort_keyed(Buffer<uint64_t>& items, Buffer<uint64_t>& scratch) {
  constexpr int kMostBits = 11;
  const auto n = static_cast<int64_t>(items.size());
  int bits = 1, n_digits = 1;
  while (bits < kMostBits && int64_t{1} << bits < n) ++bits;
  while (int64_t{1} << (bits * n_digits) < n) ++n_digits;
  uint32_t start[1 << kMostBits];
  for (int shift = 64 - bits * n_digits; shift < 64; shift += bits) {
    const auto digit = [&](uint64_t item) { return item >> shift & ((1 << bits) - 1); };
    std::fill(start, start + (1 << bits), 0);
    for (const uint64_t item : items) ++start[digit(item)];
    uint32_t before = 0;
    for (int value = 0; value < 1 << bits; ++value) before += std::exchange(start[value], before);
    for (const uint64_t item : items) scratch[start[digit(item)]++] = item;
    items.swap(scratch);
  }
  for (int64_t i = 1; i < n; ++i) {
    const uint64_t item = items[i];
    int64_t to = i;
    for (; to > 0 && items[to - 1] > item; --to) items[to] = items[to - 1];
    items[to] = item;
  }
}

}  // namespace

RbnRunner::RbnRunner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                     const RbnRule& rule)
    : width_(width),
      n_tokens_(height * width),
      n_candidates_(n_candidates),
      grid_(rbn_lines(height, width, rule)),
      random_ties_(rule.random_ties),
      scores_(make_rbn_scores(grid_, n_candidates, n_keep, rule)),
      order_(n_tokens_),
      winners_(n_tokens_),
      words_(round_up(n_tokens_, 4)),
      ties_(random_ties_ ? n_tokens_ : 0),
      keyed_(n_tokens_),
      keyed_next_(n_tokens_) {
  visit_all();
}

void RbnRunner::visit_all() {
  visits_ = order_.data();
  n_visits_ = n_tokens_;
}

void RbnRunner::draw_order(int64_t seed, int64_t bank) {
  const int64_t q = (n_tokens_ + 3) / 4;
  philox_blocks(philox_sequence(seed, kOrder, bank), 0, q, q, words_.data());
  for (int64_t i = 0; i < n_tokens_; ++i) keyed_[i] = uint64_t{words_[i]} << 32 | i;
  sort_keyed(keyed_, keyed_next_);
  for (int64_t i = 0; i < n_tokens_; ++i) order_[i] = static_cast<int32_t>(keyed_[i]);
  visit_all();
}

void RbnRunner::take_order(const int64_t* positions) {
  for (int64_t i = 0; i < n_tokens_; ++i) order_[i] = static_cast<int32_t>(positions[i]);
  visit_all();
}

void RbnRunner::leave_out(const bool* valid) {
  if (left_.size() == 0) left_ = Buffer<int32_t>(n_tokens_);
  n_visits_ = 0;
  for (const int32_t position : order_) {
    left_[n_visits_] = position;
    n_visits_ += valid[position];
  }
  visits_ = left_.data();
}

// The random words of a sweep, one for each visit.
const uint32_t* RbnRunner::draw_ties(int64_t seed, int64_t bank, uint32_t sweep) {
  const int64_t q = (n_tokens_ + 3) / 4;
  const auto first = static_cast<uint32_t>(sweep * q);
  philox_blocks(philox_sequence(seed, kTie, bank), first, q, q, words_.data());
  for (int64_t i = 0; i < n_visits_; ++i) ties_[i] = words_[visits_[i]];
  return ties_.data();
}

void RbnRunner::run(int64_t seed, int64_t bank, bool* visible) {
  scores_->clear();
  std::memset(visible, 0, n_candidates_ * n_tokens_);
  // Exact: positions have 30 bits, a double 53, and no quotient is nearer to an integer than
  // 0.5 / width.
  const double rows_per_token = 1.0 / static_cast<double>(width_);
  const int64_t first_cell = rbn_cell(grid_, 0, 0), cells_between_rows = grid_.pitch - width_;
  for (int64_t i = 0; i < n_visits_; ++i) {
    const auto y = static_cast<int32_t>((visits_[i] + 0.5) * rows_per_token);
    keyed_[i] = first_cell + visits_[i] + y * cells_between_rows;
  }
  int64_t unfilled = n_candidates_;
  for (uint32_t sweep = 0; unfilled > 0; ++sweep) {
    const uint32_t* ties = random_ties_ ? draw_ties(seed, bank, sweep) : nullptr;
    unfilled = scores_->sweep({n_visits_, keyed_.data(), ties, winners_.data()});
    // Not written during the visits, whose stores would wait for these.
    for (int64_t i = 0; i < n_visits_; ++i) {
      if (winners_[i] >= 0) visible[winners_[i] * n_tokens_ + visits_[i]] = true;
    }
  }
}

}  // namespace smnm
