// The scores of all masks of a bank while Algorithm 1 visits its positions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../common/rbn_scoring.h"

namespace smnm {

struct RbnRule {
  std::vector<int64_t> windows;  // odd sizes
  std::vector<int64_t> weights;  // thousandths: horizontal, vertical, main and second diagonal
  bool random_ties;
};

// The visits of one sweep.
struct RbnVisits {
  int64_t n;
  const uint64_t* cells;  // of the bordered grid, see rbn_lines()
  const uint32_t* words;  // random, one for each visit, or nullptr: ties go to the first mask
  int16_t* winners;       // the mask that takes each visit, or -1: written
};

class RbnScores {
 public:
  virtual ~RbnScores() = default;
  // Begins a bank.
  virtual void clear() = 0;
  // Makes the visits; returns how many masks are not full then.
  virtual int64_t sweep(const RbnVisits& visits) = 0;
  // For benchmarks.
  virtual const char* describe() const = 0;
};

RbnLines rbn_lines(int64_t height, int64_t width, const RbnRule& rule);

std::unique_ptr<RbnScores> make_rbn_scores(const RbnLines& grid, int64_t n_candidates,
                                           int64_t n_keep, const RbnRule& rule);

}  // namespace smnm
