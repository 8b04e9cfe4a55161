// Algorithm 1, one position at a time.
#include "rbn_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "philox_blocks.h"
#include "simd.h"

namespace smnm {
namespace {

constexpr int64_t kLineBytes = 64;
// Scores of more bytes than this are fetched ahead, by so many visits.
constexpr size_t kCacheBytes = 1 << 18;
constexpr int64_t kVisitsAhead = 8;

bool outgrows_caches(size_t score_bytes) { return score_bytes > kCacheBytes; }

// Sorts (random key << 32 | index): a radix sort by so many upper bytes of the keys that few keys
// are equal in these, then an insertion sort, which has little left to do.
void sort_keyed(Buffer<uint64_t>& items, Buffer<uint64_t>& scratch) {
  const auto n = static_cast<int64_t>(items.size());
  const int first_digit = n <= 1 << 10 ? 2 : n <= 1 << 20 ? 1 : 0;
  uint32_t start[4][256] = {};
  for (const uint64_t item : items) {
    for (int digit = first_digit; digit < 4; ++digit) {
      ++start[digit][item >> (32 + 8 * digit) & 255];
    }
  }
  for (int digit = first_digit; digit < 4; ++digit) {
    uint32_t before = 0;
    for (uint32_t& count : start[digit]) before += std::exchange(count, before);
    for (const uint64_t item : items) {
      scratch[start[digit][item >> (32 + 8 * digit) & 255]++] = item;
    }
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

template <class Score>
RbnRunner<Score>::RbnRunner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                            const RbnRule& rule)
    : width_(width),
      n_tokens_(height * width),
      n_candidates_(n_candidates),
      n_keep_(n_keep),
      random_ties_(rule.random_ties) {
  const auto n_windows = static_cast<int64_t>(rule.windows.size());
  const RbnLines grid =
      rbn_lines(height, width, rule.windows.data(), n_windows, rule.weights.data());
  first_cell_ = rbn_cell(grid, 0, 0);
  cells_between_rows_ = grid.pitch - width;
  for (int64_t i = 0; i < grid.n_neighbours; ++i) {
    const RbnNeighbour to = rbn_neighbour(grid, rule.windows.data(), n_windows, i);
    neighbours_.push_back({to.offset * n_candidates, to.rise});
  }
  scores_.resize(grid.n_cells * n_candidates);
  if (outgrows_caches(scores_.size() * sizeof(Score))) {
    constexpr int64_t kLine = kLineBytes / sizeof(Score);
    std::vector<int64_t> touched = {0, n_candidates - 1};
    for (const RbnNeighbour& to : neighbours_) {
      touched.push_back(to.offset);
      touched.push_back(to.offset + n_candidates - 1);
    }
    std::sort(touched.begin(), touched.end());
    // Keeps an offset if it is at least a cache line beyond the one kept before; and the last
    // offset before a gap, whose score may lie in the next line.
    for (size_t i = 0; i < touched.size(); ++i) {
      const bool last = i + 1 == touched.size() || touched[i + 1] > touched[i] + kLine;
      const bool first = fetched_.empty();
      if (first || touched[i] >= fetched_.back() + kLine ||
          (last && touched[i] != fetched_.back())) {
        fetched_.push_back(touched[i]);
      }
    }
  }
  winners_.resize(n_tokens_);
  words_.resize(round_up(n_tokens_, 4));
  keyed_.resize(n_tokens_);
  keyed_next_.resize(n_tokens_);
  order_.resize(n_tokens_);
}

template <class Score>
const int32_t* RbnRunner<Score>::draw_order(int64_t seed, int64_t bank) {
  const int64_t q = (n_tokens_ + 3) / 4;
  philox_blocks(philox_sequence(seed, kOrder, bank), 0, q, q, words_.data());
  for (int64_t i = 0; i < n_tokens_; ++i) keyed_[i] = uint64_t{words_[i]} << 32 | i;
  sort_keyed(keyed_, keyed_next_);
  for (int64_t i = 0; i < n_tokens_; ++i) order_[i] = static_cast<int32_t>(keyed_[i]);
  return order_.data();
}

template <class Score>
template <class Position>
void RbnRunner<Score>::run(const Position* order, int64_t seed, int64_t bank, bool* visible) {
  std::fill(scores_.begin(), scores_.end(), 0);
  std::memset(visible, 0, n_candidates_ * n_tokens_);
  full_.assign(n_candidates_, 0);
  room_.assign(n_candidates_, n_keep_);
  // Exact: positions have 30 bits, a double 53, and no quotient is nearer to an integer than
  // 0.5 / width.
  const double rows_per_token = 1.0 / static_cast<double>(width_);
  for (int64_t i = 0; i < n_tokens_; ++i) {
    const auto position = static_cast<int32_t>(order[i]);
    const auto y = static_cast<int32_t>((position + 0.5) * rows_per_token);
    keyed_[i] = (first_cell_ + position + y * cells_between_rows_) * n_candidates_;
  }
  int64_t unfilled = n_candidates_;
  for (uint32_t n_sweeps = 0; unfilled > 0; ++n_sweeps) {
    if (random_ties_) {
      const int64_t q = (n_tokens_ + 3) / 4;
      const auto first = static_cast<uint32_t>(n_sweeps * q);
      philox_blocks(philox_sequence(seed, kTie, bank), first, q, q, words_.data());
    }
    unfilled = sweep(order, unfilled);
    // Not written during the visits, whose stores would wait for these.
    for (int64_t i = 0; i < n_tokens_; ++i) {
      if (winners_[i] >= 0) visible[winners_[i] * n_tokens_ + order[i]] = true;
    }
  }
}

template <class Score>
SMNM_INLINE void RbnRunner<Score>::fetch(int64_t visit) const {
  for (const int64_t offset : fetched_) __builtin_prefetch(&scores_[visit + offset], 1);
}

// Visits every position; returns how many masks are not full then.
template <class Score>
template <class Position>
int64_t RbnRunner<Score>::sweep(const Position* order, int64_t unfilled) {
  // Locals: the compiler would reload members after each write of a score, which could alias them.
  const int64_t n = n_tokens_, n_candidates = n_candidates_;
  const bool random_ties = random_ties_, fetches = !fetched_.empty();
  Score* scores = scores_.data();
  const uint64_t* visits = keyed_.data();
  const uint32_t* words = words_.data();
  int16_t* winners = winners_.data();
  int32_t* full = full_.data();
  const RbnNeighbour* first_neighbour = neighbours_.data();
  const RbnNeighbour* last_neighbour = first_neighbour + neighbours_.size();
  std::fill(winners_.begin(), winners_.end(), -1);
  for (int64_t i = 0; i < n && unfilled > 0; ++i) {
    if (fetches && i + kVisitsAhead < n) {
      fetch(visits[i + kVisitsAhead]);
      if (random_ties) __builtin_prefetch(words + order[i + kVisitsAhead]);
    }
    Score* here = scores + visits[i];
    const int64_t winner =
        choose_mask(n_candidates, kTaken, random_ties, random_ties ? words[order[i]] : 0,
                    [&](int64_t k) { return here[k] + full[k]; });
    if (winner < 0) continue;
    winners[i] = static_cast<int16_t>(winner);
    here[winner] += kTaken;
    for (const RbnNeighbour* to = first_neighbour; to != last_neighbour; ++to) {
      here[to->offset + winner] += static_cast<Score>(to->rise);
    }
    if (--room_[winner] == 0) {
      full[winner] = kTaken;
      --unfilled;
    }
  }
  return unfilled;
}

const char* rbn_path(int64_t height, int64_t width, int64_t n_candidates, const RbnRule& rule) {
  const RbnLines grid = rbn_lines(height, width, rule.windows.data(),
                                  static_cast<int64_t>(rule.windows.size()), rule.weights.data());
  const bool short_scores = rbn_scores_are_short(rule);
  const size_t bytes = grid.n_cells * n_candidates * (short_scores ? 2 : 4);
  if (outgrows_caches(bytes)) {
    return short_scores ? "16-bit scores, fetched ahead" : "32-bit scores, fetched ahead";
  }
  return short_scores ? "16-bit scores" : "32-bit scores";
}

template class RbnRunner<int16_t>;
template class RbnRunner<int32_t>;
template void RbnRunner<int16_t>::run(const int32_t*, int64_t, int64_t, bool*);
template void RbnRunner<int16_t>::run(const int64_t*, int64_t, int64_t, bool*);
template void RbnRunner<int32_t>::run(const int32_t*, int64_t, int64_t, bool*);
template void RbnRunner<int32_t>::run(const int64_t*, int64_t, int64_t, bool*);

}  // namespace smnm
