// Algorithm 1, one position at a time.
#include "rbn.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "philox.h"
#include "simd.h"

namespace smnm {
namespace {

// Stable sort of (key << 32 | index) by key, a byte at a time.
void radix_sort(std::vector<uint64_t>& items, std::vector<uint64_t>& scratch) {
  uint32_t start[4][256] = {};
  for (const uint64_t item : items) {
    for (int digit = 0; digit < 4; ++digit) ++start[digit][item >> (32 + 8 * digit) & 255];
  }
  for (auto& counts : start) {
    uint32_t before = 0;
    for (uint32_t& count : counts) before += std::exchange(count, before);
  }
  for (int digit = 0; digit < 4; ++digit) {
    for (const uint64_t item : items) {
      scratch[start[digit][item >> (32 + 8 * digit) & 255]++] = item;
    }
    items.swap(scratch);
  }
}

}  // namespace

RbnBank::RbnBank(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                 const RbnRule& rule)
    : n_candidates_(n_candidates), n_keep_(n_keep), random_ties_(rule.random_ties) {
  const int64_t lanes = round_up(n_candidates, 8);
  const auto n_windows = static_cast<int64_t>(rule.windows.size());
  const RbnLines grid =
      rbn_lines(height, width, rule.windows.data(), n_windows, rule.weights.data());
  for (int64_t i = 0; i < grid.n_neighbours; ++i) {
    const RbnNeighbour to = rbn_neighbour(grid, rule.windows.data(), n_windows, i);
    neighbours_.push_back({to.offset * lanes, to.rise});
  }
  scores_.resize(grid.n_cells * lanes);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) cells_.push_back(rbn_cell(grid, y, x) * lanes);
  }
  const int64_t n = height * width;
  keyed_.resize(n);
  keyed_next_.resize(n);
  order_.resize(n);
  words_.resize(round_up(n, 4));
}

const int32_t* RbnBank::draw_order(int64_t seed, int64_t bank) {
  const auto n = static_cast<int64_t>(order_.size());
  const int64_t q = (n + 3) / 4;
  philox_blocks(philox_stream(seed, kOrder, bank), 0, q, q, words_.data());
  for (int64_t i = 0; i < n; ++i) keyed_[i] = uint64_t{words_[i]} << 32 | i;
  radix_sort(keyed_, keyed_next_);
  for (int64_t i = 0; i < n; ++i) order_[i] = static_cast<int32_t>(keyed_[i]);
  return order_.data();
}

template <class Position>
void RbnBank::run(const Position* order, int64_t seed, int64_t bank, bool* visible) {
  const auto n = static_cast<int64_t>(cells_.size());
  std::fill(scores_.begin(), scores_.end(), 0);
  std::memset(visible, 0, n_candidates_ * n);
  std::vector<int32_t> full(n_candidates_, 0);
  std::vector<int64_t> room(n_candidates_, n_keep_);
  // Locals, because every byte written to `visible` could alias a member.
  const int64_t n_candidates = n_candidates_;
  const int64_t* cells = cells_.data();
  int32_t* scores = scores_.data();
  const auto* first_neighbour = neighbours_.data();
  const auto* last_neighbour = first_neighbour + neighbours_.size();
  int64_t unfilled = n_candidates;
  for (uint32_t sweep = 0; unfilled > 0; ++sweep) {
    if (random_ties_) {
      const int64_t q = (n + 3) / 4;
      const auto first = static_cast<uint32_t>(sweep * q);
      philox_blocks(philox_stream(seed, kTie, bank), first, q, q, words_.data());
    }
    for (int64_t i = 0; i < n && unfilled > 0; ++i) {
      const auto position = static_cast<int64_t>(order[i]);
      int32_t* here = scores + cells[position];
      const int64_t winner =
          choose_mask(n_candidates, random_ties_, random_ties_ ? words_[position] : 0,
                      [&](int64_t k) { return here[k] + full[k]; });
      if (winner < 0) continue;
      visible[winner * n + position] = true;
      here[winner] += kTaken;
      for (const auto* to = first_neighbour; to != last_neighbour; ++to) {
        here[to->offset + winner] += to->rise;
      }
      if (--room[winner] == 0) {
        full[winner] = kTaken;
        --unfilled;
      }
    }
  }
}

template void RbnBank::run(const int32_t*, int64_t, int64_t, bool*);
template void RbnBank::run(const int64_t*, int64_t, int64_t, bool*);

}  // namespace smnm
