// Algorithm 1 with scores kept up to date: when a mask takes a position, the scores of the few
// neighbours on the four lines rise, instead of every visit counting its windows anew. Scores are
// integers of thousandths, so they compare exactly.
#include "rbn.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "philox.h"
#include "simd.h"

namespace smnm {
namespace {

// Above any score: marks a mask that is full, or that already shows the position.
constexpr int32_t kTaken = 1 << 29;

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
  // Steps longer than a side of the grid lead from no position to another.
  const int64_t reach = *std::max_element(rule.windows.begin(), rule.windows.end()) / 2;
  const int64_t border_y = std::min(reach, height - 1), border_x = std::min(reach, width - 1);
  const int64_t pitch = width + 2 * border_x;
  const int64_t direction[4][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};  // (dy, dx), as the weights
  for (int64_t step = 1; step <= reach; ++step) {
    const auto n_windows = std::count_if(rule.windows.begin(), rule.windows.end(),
                                         [step](int64_t window) { return window / 2 >= step; });
    for (int j = 0; j < 4; ++j) {
      const auto [dy, dx] = direction[j];
      const auto rise = static_cast<int32_t>(n_windows * rule.weights[j]);
      if (rise == 0 || (dy != 0 && step > border_y) || (dx != 0 && step > border_x)) continue;
      const int64_t offset = step * (dy * pitch + dx) * lanes;
      neighbours_.push_back({offset, rise});
      neighbours_.push_back({-offset, rise});
    }
  }
  scores_.resize((height + 2 * border_y) * pitch * lanes);
  for (int64_t y = border_y; y < border_y + height; ++y) {
    for (int64_t x = border_x; x < border_x + width; ++x) cells_.push_back((y * pitch + x) * lanes);
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
      // The lowest (score, mask) pair as one number: no branch on scores, which nothing predicts.
      int64_t best = INT64_MAX;
      for (int64_t k = 0; k < n_candidates; ++k) {
        best = std::min(best, int64_t{here[k] + full[k]} << kMaskBits | k);
      }
      const auto lowest = static_cast<int32_t>(best >> kMaskBits);
      int64_t winner = best & ((1 << kMaskBits) - 1);
      if (lowest >= kTaken) continue;
      if (random_ties_) {
        uint32_t tied = 0;
        for (int64_t k = winner; k < n_candidates; ++k) tied += here[k] + full[k] == lowest;
        uint32_t skipped = uint64_t{words_[position]} * tied >> 32;
        while (skipped > 0) {
          ++winner;
          skipped -= here[winner] + full[winner] == lowest;
        }
      }
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
