// Algorithm 1, one position at a time.
#include "rbn_scores.h"

#include <algorithm>

#include "buffer.h"
#include "kernels.h"
#include "rbn_few.h"
#include "simd.h"

namespace smnm {
namespace {

constexpr int64_t kLineBytes = 64;
// Scores of more bytes than this are fetched ahead, by so many visits.
constexpr int64_t kCacheBytes = 1 << 18;
constexpr int64_t kVisitsAhead = 8;

// The scores of all masks at a cell lie side by side. A visit reads and writes a few bytes at a few
// cells, and on a large grid most of its time goes into fetching them from memory. So scores are as
// narrow as the rule allows (16 bits up to kTakenShort), and if they do not fit in the caches,
// those of a visit are prefetched some visits before, as the order is known.
template <class Score>
class ScoresByCell final : public RbnScores {
 public:
  // More than any score: added to the score of a mask that is full, and of one that already shows
  // the position. The type holds a score plus twice this.
  static constexpr int32_t kTaken = sizeof(Score) == 2 ? kTakenShort : smnm::kTaken;

  ScoresByCell(const RbnLines& grid, int64_t n_candidates, int64_t n_keep, const RbnRule& rule)
      : n_candidates_(n_candidates),
        n_keep_(n_keep),
        scores_(grid.n_cells * n_candidates),
        full_(n_candidates),
        room_(n_candidates) {
    const auto n_windows = static_cast<int64_t>(rule.windows.size());
    for (int64_t i = 0; i < grid.n_neighbours; ++i) {
      const RbnNeighbour to = rbn_neighbour(grid, rule.windows.data(), n_windows, i);
      neighbours_.push_back({to.offset * n_candidates, to.rise});
    }
    if (static_cast<int64_t>(scores_.size() * sizeof(Score)) <= kCacheBytes) return;
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

  void clear() override {
    std::fill(scores_.begin(), scores_.end(), 0);
    std::fill(full_.begin(), full_.end(), 0);
    std::fill(room_.begin(), room_.end(), n_keep_);
    unfilled_ = n_candidates_;
  }

  int64_t sweep(const RbnVisits& visits) override {
    // Locals: the compiler would reload members after each write of a score, which could alias
    // them.
    const int64_t n = visits.n, n_candidates = n_candidates_;
    const uint64_t* cells = visits.cells;
    const uint32_t* words = visits.words;
    int16_t* winners = visits.winners;
    const bool fetches = !fetched_.empty();
    Score* scores = scores_.data();
    int32_t* full = full_.data();
    int64_t unfilled = unfilled_;
    const RbnNeighbour* first_neighbour = neighbours_.data();
    const RbnNeighbour* last_neighbour = first_neighbour + neighbours_.size();
    std::fill(winners, winners + n, -1);
    for (int64_t i = 0; i < n && unfilled > 0; ++i) {
      if (fetches && i + kVisitsAhead < n) fetch(cells[i + kVisitsAhead] * n_candidates);
      Score* here = scores + cells[i] * n_candidates;
      const int64_t winner =
          choose_mask(n_candidates, kTaken, words != nullptr, words == nullptr ? 0 : words[i],
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
    return unfilled_ = unfilled;
  }

  const char* describe() const override {
    const bool shorts = sizeof(Score) == 2;
    if (fetched_.empty()) return shorts ? "16-bit scores" : "32-bit scores";
    return shorts ? "16-bit scores, fetched ahead" : "32-bit scores, fetched ahead";
  }

 private:
  SMNM_INLINE void fetch(int64_t visit) const {
    for (const int64_t offset : fetched_) __builtin_prefetch(&scores_[visit + offset], 1);
  }

  int64_t n_candidates_, n_keep_, unfilled_ = 0;
  std::vector<RbnNeighbour> neighbours_;  // offsets into scores_
  std::vector<int64_t> fetched_;          // offsets of the cache lines to fetch ahead
  Buffer<Score> scores_;                  // of each cell; plus kTaken if the mask shows it
  std::vector<int32_t> full_;             // of each mask: kTaken if it is
  std::vector<int64_t> room_;             // visible patches still to come
};

// See rbn_few.h.
class ScoresByMask final : public RbnScores {
 public:
  static bool can(const RbnLines& grid, int64_t n_candidates) {
    return n_candidates <= kFewLanes && 2 * grid.border_x < kFewLanes &&
           size(grid, n_candidates) * 2 <= kCacheBytes;
  }

  ScoresByMask(const RbnLines& grid, int64_t n_candidates, int64_t n_keep, const RbnRule& rule)
      : n_keep_(n_keep), scores_(size(grid, n_candidates)) {
    masks_.n_masks = n_candidates;
    masks_.pitch = grid.pitch;
    masks_.plane = grid.n_cells;
    masks_.n_rows = 2 * grid.border_y + 1;
    masks_.first_rise = -grid.border_y * grid.pitch - grid.border_x;
    rises_.resize(masks_.n_rows * kFewLanes);
    const auto rise_at = [&](int64_t offset) -> uint16_t& {
      const int64_t from_first = offset - masks_.first_rise;
      return rises_[from_first / grid.pitch * kFewLanes + from_first % grid.pitch];
    };
    rise_at(0) = kTakenShort;
    const auto n_windows = static_cast<int64_t>(rule.windows.size());
    for (int64_t i = 0; i < grid.n_neighbours; ++i) {
      const RbnNeighbour to = rbn_neighbour(grid, rule.windows.data(), n_windows, i);
      rise_at(to.offset) = static_cast<uint16_t>(to.rise);
    }
    masks_.rises = rises_.data();
    masks_.scores = scores_.data();
  }

  void clear() override {
    std::fill(scores_.begin(), scores_.end(), 0);
    for (int64_t k = 0; k < kFewLanes; ++k) {
      masks_.full[k] = k < masks_.n_masks ? 0 : kTakenShort;
      masks_.room[k] = n_keep_;
    }
    masks_.unfilled = masks_.n_masks;
  }

  int64_t sweep(const RbnVisits& visits) override {
    kernels().sweep_few(masks_, visits);
    return masks_.unfilled;
  }

  const char* describe() const override { return "16-bit scores by mask"; }

 private:
  // A vector runs over the end of the last row of the last mask.
  static int64_t size(const RbnLines& grid, int64_t n_candidates) {
    return grid.n_cells * n_candidates + kFewLanes;
  }

  int64_t n_keep_;
  FewMasks masks_;
  Buffer<uint16_t> scores_;
  std::vector<uint16_t> rises_;
};

}  // namespace

RbnLines rbn_lines(int64_t height, int64_t width, const RbnRule& rule) {
  return rbn_lines(height, width, rule.windows.data(), static_cast<int64_t>(rule.windows.size()),
                   rule.weights.data());
}

std::unique_ptr<RbnScores> make_rbn_scores(const RbnLines& grid, int64_t n_candidates,
                                           int64_t n_keep, const RbnRule& rule) {
  if (rbn_max_score(rule.windows, rule.weights) >= kTakenShort) {
    return std::make_unique<ScoresByCell<int32_t>>(grid, n_candidates, n_keep, rule);
  }
  if (ScoresByMask::can(grid, n_candidates)) {
    return std::make_unique<ScoresByMask>(grid, n_candidates, n_keep, rule);
  }
  return std::make_unique<ScoresByCell<int16_t>>(grid, n_candidates, n_keep, rule);
}

}  // namespace smnm
