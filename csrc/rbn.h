// Regularized blue noise (Algorithm 1): K masks compete for each position of a random order.
#pragma once

#include <cstdint>
#include <vector>

#include "rbn_scoring.h"

namespace smnm {

struct RbnRule {
  std::vector<int64_t> windows;  // odd sizes
  std::vector<int64_t> weights;  // thousandths: horizontal, vertical, main and second diagonal
  bool random_ties;
};

// Runs banks of one shape; holds the buffers of one thread.
class RbnBank {
 public:
  RbnBank(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep, const RbnRule& rule);
  // The bank's own random order, int32 [N].
  const int32_t* draw_order(int64_t seed, int64_t bank);
  // visible[k * N + position] of the K masks that the order leads to.
  template <class Position>
  void run(const Position* order, int64_t seed, int64_t bank, bool* visible);

 private:
  int64_t n_candidates_, n_keep_;
  bool random_ties_;
  std::vector<RbnNeighbour> neighbours_;  // offsets into scores_
  // What each mask would score at each cell of the bordered grid: n_candidates rounded up per cell.
  // cells_[position] points in.
  std::vector<int32_t> scores_;
  std::vector<int64_t> cells_;
  std::vector<uint32_t> words_;
  std::vector<uint64_t> keyed_, keyed_next_;
  std::vector<int32_t> order_;
};

}  // namespace smnm
