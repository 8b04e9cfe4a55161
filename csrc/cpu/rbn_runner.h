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
// A visit touches scores of few bytes at a few cells; what it costs is their way to the core. So
// scores are as narrow as the rule allows (16 bits for the usual windows), a cell's masks lie side
// by side, and the order is known ahead: where scores outgrow the caches, they are fetched for a
// visit some visits before it.
template <class Score>
class RbnRunner {
 public:
  // Above any score: marks a mask that is full, or that already shows the position. Twice this and
  // a score fit.
  static constexpr int32_t kTaken = sizeof(Score) == 2 ? 1 << 14 : smnm::kTaken;

  RbnRunner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
            const RbnRule& rule);
  // The bank's own random order, int32 [N].
  const int32_t* draw_order(int64_t seed, int64_t bank);
  // visible[k * N + position] of the K masks that the order leads to.
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
  // What each mask would score at each cell of the bordered grid, n_candidates per cell; plus
  // kTaken where the mask shows the cell.
  Buffer<Score> scores_;
  Buffer<int16_t> winners_;    // of each visit, or -1
  std::vector<int32_t> full_;  // of each mask: kTaken if it is
  std::vector<int64_t> room_;  // visible patches still to come
  Buffer<uint32_t> words_;     // of the order, then of the ties, by position
  // While the order is drawn, positions below their random words; then where the scores of each
  // visit are.
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

// What a benchmark says of the way banks are run.
const char* rbn_path(int64_t height, int64_t width, int64_t n_candidates, const RbnRule& rule);

}  // namespace smnm
