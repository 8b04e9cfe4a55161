// Algorithm 1 in parallel rounds, with exactly the same result: the work of one GPU thread block
// for a bank. It is a template over the block, so that tests run the same code on a CPU
// (shuffled_block.h).
//
// A Block (cuda_block.h) offers
//   size(), size_bits()                 its threads, and the power of two among them;
//   for_each(n, body)                   body(i) for all i < n, in any order;
//   for_each_apart(n, body)             the same, by other threads than for_each if possible;
//   for_each_group(n, bits, body)       body(group, i) for all i < n, each by a group of 2^bits
//                                       threads; groups larger than a warp have only each and size;
//   max_group_bits()                    of a warp; size() is a multiple of its lanes;
//   once(body), zero(from, to)          body(); zero bytes, at multiples of 16;
//   barrier()                           of all threads;
//   add, lower, raise, set_bits         atomics; add returns what was there.
// The lanes of a Group run in step. It offers
//   size()                              the number of its lanes;
//   each(body), map(body)               body(lane) for all lanes; map returns values, a value for
//                                       each lane: values[lane] = body(lane);
//   Lanes<T>                            the type of such values;
//   min, sum, ballot, at                of such values; ballot has bit l set for lane l;
//   make_prefix_sums                    of rows of such values, each lane's own included;
//   barrier()                           of its lanes.
// Code outside a body is run by every thread alike. It may read shared memory, as a body may, if
// no body writes it between the barriers around: that keeps every result independent of the order
// of the threads.
//
// Why rounds equal the visits one by one. A decision at a position reads the scores at that
// position alone, and which masks are full. A score there rises only when a neighbour is decided.
// While no mask fills, then, a decision depends on the neighbours that come earlier in the order
// and on nothing else; once these are decided it can be made, whatever else is still open. Rises
// are integers: added in any order, they give the same sum. By induction over the order, rounds of
// all positions whose earlier neighbours are decided make every decision as the visits would, and
// no two of a round are neighbours, so no score is read that the round changes.
// Capacity breaks this at the first visit at which a mask gets its last position. Decisions up to
// and including that visit did not see a full mask and stand, and no later one is trusted: the
// rises of later wins are taken back and the rest of the sweep is done in order (rbn_visits.h). The
// first such visit is known from the wins alone, since those up to it are right: the earliest, over
// the masks, of the win that fills a mask.
// Sweeps need a bound, because a caller's order may lack positions: K are enough. A mask not full
// after K sweeps was a candidate all along, so in each of them a position it does not show went to
// another mask, and no mask takes a position twice: with K - 1 others, it shows all positions.
//
// Cost for 64 by 8, K = 5, windows (3, 5), 102 kept: 512 words of the order from 128 Philox blocks;
// 22 to 27 rounds of one barrier each, on average 20 positions by 16 neighbours with two atomics
// each; 30 to 60 visits in order, about eight at a time; 15 other barriers; 46 KB of state; 9 bytes
// written per token and 8 per visible one. Latency bounds it, not throughput.
#pragma once

#include <cstdint>
#include <type_traits>

#include "rbn_choice.h"
#include "rbn_order.h"
#include "rbn_rounds_state.h"
#include "rbn_visits.h"

namespace smnm {

// Sets up the parts of the state that need no random words. `starts` is for draw_order.
template <class Block, class Pair>
SMNM_ON_BLOCK void begin_bank(Block& block, const RoundsShape& shape,
                              const RoundsState<Pair>& state) {
  block.zero(state.scores, state.rank);  // and what lies between
  block.for_each_apart(shape.n_cells, [&](int32_t cell) { state.rank[cell] = kNever; });
  block.for_each_apart(shape.n_steps, [&](int32_t i) {
    if (i < kListedSteps) {
      state.neighbours[i] = {shape.steps[i].cells, static_cast<Pair>(shape.steps[i].rise)};
    } else if (i < shape.n_neighbours) {
      const RbnNeighbour to = rbn_neighbour(shape, shape.windows, shape.n_windows, i);
      state.neighbours[i] = {static_cast<int32_t>(to.offset), Pair{to.rise} << shape.mask_bits};
    } else {
      state.neighbours[i] = {0, 0};
    }
  });
  block.for_each_apart(shape.n_candidates, [&](int32_t k) {
    state.room[k] = shape.n_keep;
    state.bias[k] = k;
  });
  block.once([&] {
    state.ready[0] = state.ready[1] = state.ready[2] = 0;
    *state.unfilled = shape.n_candidates;
  });
}

// Counts the bits of each mask, and calls visit(mask, index of the word's first bit, word, bits of
// the mask up to the word's end) for each word.
template <class Block, class Pair, class Visit>
SMNM_ON_BLOCK void sum_bits(Block& block, const RoundsShape& shape, const RoundsState<Pair>& state,
                            const Visit& visit) {
  const int32_t n_words = shape.n_words, bits = block.max_group_bits(), size = 1 << bits;
  block.for_each_group(shape.n_candidates, bits, [&](auto& warp, int32_t mask) {
    const uint32_t* words = state.bits + mask * n_words;
    int32_t* sums = state.sums + mask * n_words;
    int32_t before = 0;
    for (int32_t first = 0; first < n_words; first += size) {
      const auto word =
          warp.map([&](int32_t lane) { return first + lane < n_words ? words[first + lane] : 0u; });
      typename std::decay_t<decltype(warp)>::template Lanes<int32_t> counts[1] = {
          warp.map([&](int32_t lane) { return count_bits(word[lane]); })};
      warp.make_prefix_sums(counts);
      warp.each([&](int32_t lane) {
        if (first + lane >= n_words) return;
        sums[first + lane] = before + counts[0][lane];
        visit(mask, (first + lane) * 32, word[lane], before + counts[0][lane]);
      });
      if (first + size < n_words) before += warp.at(counts[0], size - 1);
    }
  });
}

// One sweep of the order.
template <class Variant, class Block, class Pair>
class Sweep {
 public:
  SMNM_ON_BLOCK Sweep(Block& block, const RoundsShape& shape, const RoundsState<Pair>& state)
      : block_(block), shape_(shape), s_(state) {}

  SMNM_ON_BLOCK void run() {
    begin();
    block_.barrier();
    decide_in_rounds();
    list_wins();
    block_.barrier();
    find_first_full();
    block_.barrier();
    const int32_t n = shape_.n_tokens, first_full = *s_.first_full;
    const int32_t last = first_full < n ? first_full : n - 1;
    settle(last);
    block_.barrier();
    if (last + 1 == n) return;
    block_.for_each_group(1, block_.max_group_bits(), [&](auto& warp, int32_t) {
      visit_in_order<Variant>(warp, block_, shape_, s_, last + 1);
    });
    block_.barrier();
  }

 private:
  SMNM_ON_BLOCK void begin() {
    block_.for_each(shape_.n_candidates * shape_.n_words, [&](int32_t i) { s_.bits[i] = 0; });
    block_.once([&] { *s_.first_full = shape_.n_tokens; });
    block_.for_each(shape_.n_tokens, [&](int32_t token) {
      const int32_t cell = cell_of(shape_, token), rank = s_.rank[cell];
      if (rank == kNever) return;
      int32_t earlier = 0;
      const int32_t* here = s_.rank + cell;
      int32_t first = 0;
      do {
        int32_t ranks[kSteps];
        for (int32_t i = 0; i < kSteps; ++i) {
          ranks[i] = here[neighbour_at<Variant>(shape_, s_, first, i).cells];
        }
        for (int32_t i = 0; i < kSteps; ++i) earlier += ranks[i] < rank;
        first += kSteps;
      } while (!Variant::one_step && first < shape_.n_steps);
      s_.pending[cell] = earlier;
      if (earlier == 0) s_.queue[0][block_.add(&s_.ready[0], 1)] = cell;
    });
  }

  template <class Group>
  SMNM_ON_BLOCK bool more_steps(const Group& group, int32_t first) const {
    if (Variant::one_step && group.size() == kSteps) return false;
    return first < shape_.n_steps;
  }

  SMNM_ON_BLOCK int32_t step_bits() const {
    return kStepBits < block_.max_group_bits() ? kStepBits : block_.max_group_bits();
  }

  // Decides all positions as if no mask became full. Lanes decrease the counters of a position's
  // neighbours while the scores that they choose by are being loaded. The lanes of a position write
  // where no others read in this round.
  SMNM_ON_BLOCK void decide_in_rounds() {
    const Candidates<Variant, Pair> candidates(shape_, s_);
    int32_t *queue = s_.queue[0], *next_queue = s_.queue[1];
    int32_t *ready = s_.ready, *next_ready = s_.ready + 1, *ready_after = s_.ready + 2;
    for (int32_t n_ready = *ready; n_ready > 0; n_ready = *ready) {
      block_.for_each_group(n_ready, step_bits(), [&](auto& group, int32_t i) {
        const int32_t cell = queue[i];
        Pair chosen = kTakenPair<Pair>;
        int32_t first = 0;
        do {
          const auto to = group.map([&](int32_t lane) { return s_.neighbours[first + lane]; });
          // Neighbours that are decided, and the border, only go below zero.
          const auto pending = group.map(
              [&](int32_t lane) { return block_.add(&s_.pending[cell + to[lane].cells], -1); });
          if (first == 0) {
            chosen = Variant::few > 0 ? candidates.choose_alone(cell)
                                      : candidates.choose_together(group, cell);
          }
          group.each([&](int32_t lane) {
            const int32_t neighbour = cell + to[lane].cells;
            const Pair rise = chosen < kTakenPair<Pair> ? to[lane].rise : 0;
            if (Variant::one_step || to[lane].rise > 0) {
              block_.add(&scores_at<Variant>(shape_, s_, neighbour)[candidates.mask_of(chosen)],
                         rise);
            }
            if (pending[lane] == 1) next_queue[block_.add(next_ready, 1)] = neighbour;
          });
          first += group.size();
        } while (more_steps(group, first));
        group.each([&](int32_t lane) {
          if (lane > 0) return;
          s_.winner[cell] = chosen < kTakenPair<Pair> ? candidates.mask_of(chosen) : kNowhere;
        });
      });
      block_.once([&] { *ready_after = 0; });
      block_.barrier();
      int32_t* was = queue;
      queue = next_queue;
      next_queue = was;
      was = ready;
      ready = next_ready;
      next_ready = ready_after;
      ready_after = was;
    }
  }

  // Enters the wins of each mask in `bits`, by rank, and in the scores.
  SMNM_ON_BLOCK void list_wins() {
    const int32_t n = shape_.n_tokens;
    block_.for_each(n, [&](int32_t rank) {
      s_.blocker[rank] = kNowhere;
      const int32_t cell = s_.order[rank], mask = cell == kNowhere ? kNowhere : s_.winner[cell];
      if (mask == kNowhere) return;
      block_.set_bits(&s_.bits[mask * shape_.n_words + rank / 32], 1u << rank % 32);
      scores_at<Variant>(shape_, s_, cell)[mask] += kTakenPair<Pair>;
    });
  }

  // Sets first_full to the rank of the first win that fills a mask; it stays n_tokens if none does.
  SMNM_ON_BLOCK void find_first_full() {
    block_.once([&] { s_.ready[0] = s_.ready[1] = s_.ready[2] = 0; });
    sum_bits(block_, shape_, s_, [&](int32_t mask, int32_t first, uint32_t word, int32_t wins) {
      // Wins of this word before the one that fills the mask.
      const int32_t before = s_.room[mask] - 1 - (wins - count_bits(word));
      if (before < 0 || wins < s_.room[mask]) return;
      block_.lower(s_.first_full, first + bit_after(word, before));
    });
  }

  // Keeps the wins up to rank `last` and takes later ones back.
  SMNM_ON_BLOCK void settle(int32_t last) {
    block_.for_each_apart(shape_.n_candidates, [&](int32_t mask) {
      const int32_t i = mask * shape_.n_words + last / 32;
      const int32_t later = count_bits((s_.bits[i] >> last % 32) >> 1), room = s_.room[mask];
      s_.room[mask] = room - (s_.sums[i] - later);
      if (room == 0 || s_.room[mask] > 0) return;
      s_.bias[mask] += kTakenPair<Pair>;
      block_.add(s_.unfilled, -1);
    });
    block_.for_each_group(shape_.n_tokens - last - 1, step_bits(), [&](auto& group, int32_t i) {
      const int32_t rank = last + 1 + i, cell = s_.order[rank];
      if (cell == kNowhere) return;
      const int32_t mask = s_.winner[cell];
      group.each([&](int32_t lane) {
        if (mask != kNowhere && lane == 0) {
          block_.add(&scores_at<Variant>(shape_, s_, cell)[mask], -kTakenPair<Pair>);
        }
        int32_t j = lane;
        do {
          const RoundsNeighbour<Pair> neighbour = s_.neighbours[j];
          const int32_t to = cell + neighbour.cells, other = s_.rank[to];
          if (mask != kNowhere)
            block_.add(&scores_at<Variant>(shape_, s_, to)[mask], -neighbour.rise);
          if (other > last && other < rank) block_.raise(&s_.blocker[rank], other);
          j += group.size();
        } while (more_steps(group, j));
      });
    });
  }

  Block& block_;
  const RoundsShape& shape_;
  const RoundsState<Pair>& s_;
};

// Runs all sweeps of a bank, after begin_bank and one of draw_order and take_order.
template <class Variant, class Block, class Pair>
SMNM_ON_BLOCK void run_sweeps(Block& block, const RoundsShape& shape,
                              const RoundsState<Pair>& state, int64_t seed, int64_t bank) {
  for (int32_t sweep = 0; sweep < shape.n_candidates; ++sweep) {
    if (*state.unfilled == 0) return;
    draw_ties(block, shape, state, seed, bank, sweep);
    Sweep<Variant, Block, Pair>(block, shape, state).run();
  }
}

// Writes the visible tokens of each mask to `bits`, and their sums to `sums`.
template <class Variant, class Block, class Pair>
SMNM_ON_BLOCK void list_visible(Block& block, const RoundsShape& shape,
                                const RoundsState<Pair>& state) {
  const int32_t n = Variant::n_candidates(shape);
  block.for_each_group(shape.n_words, block.max_group_bits(), [&](auto& warp, int32_t word) {
    for (int32_t first = 0; first < 32; first += warp.size()) {
      const auto token = warp.map([&](int32_t lane) { return word * 32 + first + lane; });
      const auto here = warp.map([&](int32_t lane) {
        const int32_t any = token[lane] < shape.n_tokens ? token[lane] : 0;
        return scores_at<Variant>(shape, state, cell_of(shape, any));
      });
      const auto show = [&](int32_t k) {
        return warp.ballot(warp.map([&](int32_t lane) {
          return token[lane] < shape.n_tokens && here[lane][k] >= kTakenPair<Pair>;
        }));
      };
      for (int32_t k = 0; k < n; ++k) {
        const uint32_t shown = show(k);
        warp.each([&](int32_t lane) {
          if (lane > 0) return;
          uint32_t& bits = state.bits[k * shape.n_words + word];
          bits = first == 0 ? shown : bits | shown << first;
        });
      }
    }
  });
  block.barrier();
  sum_bits(block, shape, state, [](int32_t, int32_t, uint32_t, int32_t) {});
  block.barrier();
}

}  // namespace smnm
