// Regularized blue noise (Algorithm 1): K masks compete for each position of a random order.
#pragma once

#include <cstdint>
#include <memory>

#include "buffer.h"
#include "rbn_scores.h"

namespace smnm {

// Runs banks of one shape; holds the buffers of one thread.
class RbnRunner {
 public:
  RbnRunner(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
            const RbnRule& rule);
  // The order of the next bank: its own, random one, or a permutation of the N positions.
  void draw_order(int64_t seed, int64_t bank);
  void take_order(const int64_t* positions);
  // Leaves positions out of what run() visits, until the next order; `valid` bool [N] has at least
  // n_keep others.
  void leave_out(const bool* valid);
  // Runs a bank; writes visible[k * N + position] of its K masks.
  void run(int64_t seed, int64_t bank, bool* visible);

 private:
  const uint32_t* draw_ties(int64_t seed, int64_t bank, uint32_t sweep);
  void visit_all();

  int64_t width_, n_tokens_, n_candidates_;
  RbnLines grid_;
  bool random_ties_;
  std::unique_ptr<RbnScores> scores_;
  Buffer<int32_t> order_;  // positions
  Buffer<int32_t> left_;   // those of them that are valid
  const int32_t* visits_;  // the positions that are visited, and how many they are
  int64_t n_visits_;
  Buffer<int16_t> winners_;  // of each visit
  Buffer<uint32_t> words_;   // random words by position: of the order, then of the ties
  Buffer<uint32_t> ties_;    // by visit
  // While the order is drawn: word << 32 | position. After that: the cell of each visit.
  Buffer<uint64_t> keyed_, keyed_next_;
};

}  // namespace smnm
