// Regularized blue noise (Algorithm 1): K masks compete for each position of a random order.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/rbn_scoring.h"
#include "buffer.h"

namespace smnm {

struct RbnRule {
  std::vector<int64_t> windows;  // odd sizes
  std::vector<int64_t> weights;  // thousandths: horizontal, vertical, main and second diagonal
  bool random_ties;
};

// Runs banks of one shape; holds the buffers of one thread.
//
// A visit reads and writes a few bytes at a few cells, and most of its time goes into fetching them
// from memory. So scores are as narrow as the rule allows (16 bits for the usual windows), and the
// scores of all masks at a cell lie side by side. If the scores do not fit in the caches, those of
// a visit are prefetched some visits before, as the order is known.
template <class Score>
class RbnRunner {
 public:
  // More than any score: added to the score of a mask that is full, and of one that already shows
  // the position. The type holds a score plus twice this.
  static constexpr int32_t kTaken = sizeof(Score) == 2 ? 1 << 14 : smnm::kTaken;

  RbnRunner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
            const RbnRule& rule);
  // Draws the random order of a bank, int32 [N].
  const int32_t* draw_order(int64_t seed, int64_t bank);
  // Runs a bank; writes visible[k * N + position] of its K masks.
  template <class Position>
  void run(const Position* order, int64_t seed, int64_t bank, bool* visible);

 private:
  template <class Position>
  int64_t sweep(const Position* order, int64_t unfilled);
  void fetch(int64_t visit) const;

  int64_t width_, n_tokens_, n_candidates_, n_keep_;
  int64_t first_cell_, cells_between_rows_;  // of the bordered grid
  bool random_ties_;
  std::vector<RbnNeighbour> neighbours_;  // offsets into scores_
  std::vector<int64_t> fetched_;          // offsets of the cache lines to fetch ahead
  // The score of each mask at each cell of the bordered grid, n_candidates per cell; plus kTaken if
  // the mask shows the cell.
  Buffer<Score> scores_;
  Buffer<int16_t> winners_;    // of each visit, or -1
  std::vector<int32_t> full_;  // of each mask: kTaken if it is
  std::vector<int64_t> room_;  // visible patches still to come
  Buffer<uint32_t> words_;     // random words by position: of the order, then of the ties
  // While the order is drawn: word << 32 | position. After that: of each visit, the index of its
  // cell's scores.
  Buffer<uint64_t> keyed_, keyed_next_;
  Buffer<int32_t> order_;
};

inline bool rbn_scores_are_short(const RbnRule& rule) {
  return rbn_max_score(rule.windows, rule.weights) < RbnRunner<int16_t>::kTaken;
}

// Calls body(make), where make() gives an RbnRunner with the narrowest scores that hold the rule's.
template <class Body>
void with_rbn_runner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                     const RbnRule& rule, const Body& body) {
  if (rbn_scores_are_short(rule)) {
    body([&] { return RbnRunner<int16_t>(height, width, n_candidates, n_keep, rule); });
  } else {
    body([&] { return RbnRunner<int32_t>(height, width, n_candidates, n_keep, rule); });
  }
}

// A description of the way banks are run, for benchmarks.
const char* rbn_path(int64_t height, int64_t width, int64_t n_candidates, const RbnRule& rule);

}  // namespace smnm
