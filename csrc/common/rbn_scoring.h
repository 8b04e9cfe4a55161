// How Algorithm 1 scores a position and chooses its mask, for every implementation in C++ and CUDA.
//
// Scores are kept up to date: when a mask takes a position, its scores at the few neighbours on the
// four lines rise. So no visit has to count the patches in its windows. Scores are integers,
// thousandths, so they compare exactly, and their sums are the same in any order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "constants.h"
#include "integers.h"

namespace smnm {

// More than any score: added to the score of a mask that is full, and of one that already shows the
// position.
constexpr int32_t kTaken = 1 << 29;
// The same for scores of 16 bits, which hold a score plus twice this.
constexpr int32_t kTakenShort = 1 << 14;

// The highest score that a position can have.
inline int64_t rbn_max_score(const std::vector<int64_t>& windows,
                             const std::vector<int64_t>& weights) {
  int64_t reach = 0, weight = 0;
  for (const int64_t window : windows) reach += window - 1;
  for (const int64_t w : weights) weight += w;
  return reach * weight;
}

// Sample s is mask s mod K of bank s div K, the division rounding down.
SMNM_HOST_DEVICE int64_t rbn_bank_of(int64_t sample_id, int64_t n_candidates) {
  return sample_id / n_candidates - (sample_id % n_candidates < 0);
}

SMNM_HOST_DEVICE int64_t rbn_mask_of(int64_t sample_id, int64_t n_candidates) {
  const int64_t k = sample_id % n_candidates;
  return k < 0 ? k + n_candidates : k;
}

// A patch that becomes visible raises its mask's score at the cell at this offset, by `rise`
// thousandths.
struct RbnNeighbour {
  int64_t offset;
  int32_t rise;
};

// The layout of the scores: the cells of the grid row by row, with a border around it, so that
// rises outside the grid need no test. And the steps along the horizontal, vertical, main and
// second diagonal line that lead from one position to another.
struct RbnLines {
  int64_t border_y, border_x, pitch, n_cells, n_neighbours;
  struct Line {
    int64_t stride, steps, weight;
  } lines[4];
};

inline RbnLines rbn_lines(int64_t height, int64_t width, const int64_t* windows, int64_t n_windows,
                          const int64_t* weights) {
  RbnLines grid;
  // A step longer than a side of the grid leads out of it.
  const int64_t reach = *std::max_element(windows, windows + n_windows) / 2;
  grid.border_y = std::min(reach, height - 1);
  grid.border_x = std::min(reach, width - 1);
  grid.pitch = width + 2 * grid.border_x;
  grid.n_cells = (height + 2 * grid.border_y) * grid.pitch;
  const int64_t shorter = std::min(grid.border_y, grid.border_x);
  const int64_t strides[4] = {1, grid.pitch, grid.pitch + 1, grid.pitch - 1};
  const int64_t steps[4] = {grid.border_x, grid.border_y, shorter, shorter};
  grid.n_neighbours = 0;
  for (int line = 0; line < 4; ++line) {
    grid.lines[line] = {strides[line], weights[line] == 0 ? 0 : steps[line], weights[line]};
    grid.n_neighbours += 2 * grid.lines[line].steps;
  }
  return grid;
}

SMNM_HOST_DEVICE int64_t rbn_cell(const RbnLines& grid, int64_t y, int64_t x) {
  return (y + grid.border_y) * grid.pitch + x + grid.border_x;
}

// Neighbour `index` of n_neighbours. No two have the same offset, and the opposite of each is one,
// too.
template <class Grid, class Integer>
SMNM_HOST_DEVICE RbnNeighbour rbn_neighbour(const Grid& grid, const Integer* windows,
                                            Integer n_windows, Integer index) {
  int line = 0;
  while (index >= 2 * grid.lines[line].steps) index -= 2 * grid.lines[line++].steps;
  const Integer step = index / 2 + 1, offset = step * grid.lines[line].stride;
  Integer reaching = 0;
  for (Integer w = 0; w < n_windows; ++w) reaching += windows[w] / 2 >= step;
  return {index % 2 == 0 ? offset : -offset,
          static_cast<int32_t>(reaching * grid.lines[line].weight)};
}

// Of the n masks, the one with the lowest score, if that is below `taken`; else -1. If several tie,
// the first of them, or with random_ties the one that `word` chooses.
template <class ScoreOf>
SMNM_HOST_DEVICE int64_t choose_mask(int64_t n, int32_t taken, bool random_ties, uint32_t word,
                                     const ScoreOf& score_of) {
  // The lowest (score, mask) pair as one number, because branches on scores would be mispredicted.
  int64_t best = INT64_MAX;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t pair = int64_t{score_of(k)} << kMaskBits | k;
    best = pair < best ? pair : best;
  }
  const int64_t lowest = best >> kMaskBits;
  if (lowest >= taken) return -1;
  if (!random_ties) return best & (kMaxCandidates - 1);
  uint32_t tied = 0;
  for (int64_t k = 0; k < n; ++k) tied += score_of(k) == lowest;
  const auto skipped = static_cast<uint32_t>(uint64_t{word} * tied >> 32);
  uint32_t seen = 0;
  int64_t winner = 0;  // how many masks lie before the one that is seen after the skipped ones
  for (int64_t k = 0; k < n; ++k) {
    seen += score_of(k) == lowest;
    winner += seen <= skipped;
  }
  return winner;
}

}  // namespace smnm
