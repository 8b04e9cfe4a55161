// Algorithm 1 in parallel rounds, exactly: what one GPU thread block does for a bank, as templates
// over that block, so that a CPU can run the same code (rbn_rounds_cpu.cpp) and prove it.
//
// A Block offers
//   size()                              its threads;
//   for_each(n, body)                   body(i) for all i < n in any order, then a barrier;
//   for_each_lane(n, lane_bits, body)   body(i, lane) for all i < n, lane < 2^lane_bits, likewise;
//   add, lower, set_bits                atomics; add returns what was there;
//   barrier(); few(body)                body(Block of fewer threads), then a barrier.
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
// rises of later wins are taken back and the rest of the sweep is done in order, by one warp. The
// first such visit is known from the wins alone, since those up to it are right: the earliest, over
// the masks, of the win that fills a mask.
// Sweeps need a bound, because a caller's order may lack positions: K are enough. A mask not full
// after K sweeps was a candidate all along, so in each of them a position it does not show went to
// another mask, and no mask takes a position twice: with K - 1 others, it shows all positions.
//
// Cost for 64 by 8, K = 5, windows (3, 5), 102 kept: 512 words of the order from 128 Philox blocks;
// 22 to 27 rounds of one barrier each, on average 20 positions by 16 neighbours with two atomics
// each; 30 to 60 visits in order at two warp barriers each; 36 other block barriers; 39 KB of
// state; 9 bytes written per token and 8 per visible one. Latency bounds it, not throughput.
#pragma once

#include <cstdint>

#include "philox.h"
#include "rbn_rounds_state.h"
#include "rbn_scoring.h"

#ifdef __CUDACC__
#define SMNM_ON_BLOCK __device__ __forceinline__
#else
#define SMNM_ON_BLOCK inline
#endif

namespace smnm {

SMNM_HOST_DEVICE int32_t count_bits(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

// Prefix sums (each value's own included) of values[n]; returns where they are, values or scratch.
template <class Block>
SMNM_ON_BLOCK int32_t* prefix_sums(Block& block, int32_t* values, int32_t* scratch, int32_t n) {
  for (int64_t width = 1; width < n; width *= 8) {
    block.for_each(n, [&](int32_t i) {
      int32_t sum = values[i];
      for (int64_t j = 1; j < 8 && j * width <= i; ++j) sum += values[i - j * width];
      scratch[i] = sum;
    });
    int32_t* made = scratch;
    scratch = values;
    values = made;
  }
  return values;
}

// One bank on one block: begin, one of the two orders, run, then what was made.
template <class Block>
class RoundsBank {
 public:
  SMNM_ON_BLOCK RoundsBank(Block& block, const RoundsShape& shape, const RoundsState& state)
      : block_(block), shape_(shape), s_(state) {}

  SMNM_ON_BLOCK void begin() {
    block_.for_each(shape_.n_cells * shape_.n_candidates, [&](int32_t i) { s_.scores[i] = 0; });
    block_.for_each(shape_.n_cells, [&](int32_t cell) { s_.rank[cell] = kNever; });
    block_.for_each(shape_.n_tokens, [&](int32_t token) {
      const int32_t y = token / shape_.width, x = token - y * shape_.width;
      s_.cell_of[token] = static_cast<int32_t>(rbn_cell(shape_.grid, y, x));
      s_.sums[token] = 0;
    });
    block_.for_each(shape_.n_neighbours, [&](int32_t i) {
      const RbnNeighbour to = rbn_neighbour(shape_.grid, shape_.windows, shape_.n_windows, i);
      s_.neighbours[i] = {static_cast<int32_t>(to.offset), to.rise};
    });
    block_.for_each(shape_.n_candidates, [&](int32_t k) { s_.room[k] = shape_.n_keep; });
  }

  // The bank's own order: tokens by their random word, then by index. Buckets by word hold about
  // one token each, so a token's rank is its bucket's start plus a few comparisons.
  SMNM_ON_BLOCK void draw_order(int64_t seed, int64_t bank) {
    const int32_t n = shape_.n_tokens, n_blocks = (n + 3) / 4;
    const auto bucket_of = [n](uint32_t word) {
      return static_cast<int32_t>(uint64_t{word} * static_cast<uint32_t>(n) >> 32);
    };
    const PhiloxStream stream = philox_stream(seed, kOrder, bank);
    block_.for_each(n_blocks, [&](int32_t b) {
      uint32_t drawn[4];
      philox_block(stream, static_cast<uint32_t>(b), drawn);
      for (int j = 0; j < 4; ++j) {
        const int64_t token = j * int64_t{n_blocks} + b;
        if (token >= n) continue;
        s_.words[token] = drawn[j];
        block_.add(&s_.sums[bucket_of(drawn[j])], 1);
      }
    });
    // Each token takes a place from the end of its bucket, which leaves the bucket's start.
    int32_t* starts = prefix_sums(block_, s_.sums, s_.more_sums, n);
    int32_t* grouped = s_.queue;
    block_.for_each(n, [&](int32_t token) {
      grouped[block_.add(&starts[bucket_of(s_.words[token])], -1) - 1] = token;
    });
    block_.for_each(n, [&](int32_t token) {
      const uint32_t word = s_.words[token];
      const int32_t bucket = bucket_of(word), start = starts[bucket];
      const int32_t end = bucket + 1 < n ? starts[bucket + 1] : n;
      int32_t rank = start;
      for (int32_t i = start; i < end; ++i) {
        const int32_t other = grouped[i];
        const uint32_t theirs = s_.words[other];
        rank += theirs < word || (theirs == word && other < token);
      }
      s_.order[rank] = s_.cell_of[token];
      s_.rank[s_.cell_of[token]] = rank;
    });
  }

  // A caller's order. What is out of range or repeated is no visit.
  SMNM_ON_BLOCK void take_order(const int64_t* tokens) {
    const int32_t n = shape_.n_tokens;
    block_.for_each(n, [&](int32_t rank) {
      const int64_t token = tokens[rank];
      const bool inside = token >= 0 && token < n;
      s_.order[rank] = inside ? s_.cell_of[token] : kNowhere;
      if (inside) block_.lower(&s_.rank[s_.cell_of[token]], rank);
    });
    block_.for_each(n, [&](int32_t rank) {
      const int32_t cell = s_.order[rank];
      if (cell != kNowhere && s_.rank[cell] != rank) s_.order[rank] = kNowhere;
    });
  }

  SMNM_ON_BLOCK void run(int64_t seed, int64_t bank) {
    const int32_t n = shape_.n_tokens;
    for (int32_t sweep = 0; sweep < shape_.n_candidates; ++sweep) {
      const int32_t n_open = list_open();
      if (n_open == 0) return;
      begin_sweep(seed, bank, sweep);
      decide_in_rounds(n_open);
      const int32_t first_full = find_first_full();
      const int32_t last = first_full < n ? first_full : n - 1;
      settle(last);
      if (last + 1 < n) {
        const int32_t still_open = list_open();
        block_.few([&](auto& few) { visit_in_order(few, last + 1, still_open); });
      }
    }
  }

  // Visible tokens as bits, and their prefix sums over all words of all masks.
  SMNM_ON_BLOCK void list_visible() {
    const int32_t n_bits = shape_.n_candidates * shape_.n_words;
    block_.for_each(n_bits, [&](int32_t i) { s_.bits[i] = 0; });
    block_.for_each(shape_.n_tokens, [&](int32_t token) {
      const int32_t* here = scores_at(s_.cell_of[token]);
      for (int32_t k = 0; k < shape_.n_candidates; ++k) {
        if (here[k] >= kTaken) set_bit(k, token);
      }
    });
    sum_bits();
  }

  SMNM_ON_BLOCK bool visible(int32_t mask, int32_t token) const {
    return s_.bits[mask * shape_.n_words + token / 32] >> token % 32 & 1;
  }

  // Visible tokens of the mask before this one. Each mask shows n_keep.
  SMNM_ON_BLOCK int32_t visible_before(int32_t mask, int32_t token) const {
    const int32_t i = mask * shape_.n_words + token / 32;
    return prefix_[i] - count_bits(s_.bits[i] >> token % 32) - mask * shape_.n_keep;
  }

 private:
  SMNM_ON_BLOCK int32_t* scores_at(int32_t cell) const {
    return s_.scores + cell * shape_.n_candidates;
  }

  SMNM_ON_BLOCK void set_bit(int32_t mask, int32_t i) {
    block_.set_bits(&s_.bits[mask * shape_.n_words + i / 32], 1u << i % 32);
  }

  SMNM_ON_BLOCK void sum_bits() {
    const int32_t n_bits = shape_.n_candidates * shape_.n_words;
    block_.for_each(n_bits, [&](int32_t i) { s_.sums[i] = count_bits(s_.bits[i]); });
    prefix_ = prefix_sums(block_, s_.sums, s_.more_sums, n_bits);
  }

  // Lists the masks with room and returns how many they are.
  SMNM_ON_BLOCK int32_t list_open() {
    block_.for_each(shape_.n_candidates, [&](int32_t k) {
      int32_t before = 0;
      for (int32_t j = 0; j < k; ++j) before += s_.room[j] > 0;
      const bool has_room = s_.room[k] > 0;
      if (has_room) s_.open[before] = k;
      if (k + 1 == shape_.n_candidates) *s_.n_open = before + has_room;
    });
    return *s_.n_open;
  }

  SMNM_ON_BLOCK void begin_sweep(int64_t seed, int64_t bank, int32_t sweep) {
    const int32_t n = shape_.n_tokens, n_blocks = (n + 3) / 4;
    if (shape_.random_ties) {
      const PhiloxStream stream = philox_stream(seed, kTie, bank);
      const auto first = static_cast<uint32_t>(int64_t{sweep} * n_blocks);
      block_.for_each(n_blocks, [&](int32_t b) {
        uint32_t drawn[4];
        philox_block(stream, first + static_cast<uint32_t>(b), drawn);
        for (int j = 0; j < 4; ++j) {
          const int64_t token = j * int64_t{n_blocks} + b;
          if (token < n) s_.words[s_.cell_of[token]] = drawn[j];
        }
      });
    }
    block_.for_each(shape_.n_cells, [&](int32_t cell) { s_.pending[cell] = 0; });
    block_.for_each(shape_.n_candidates * shape_.n_words, [&](int32_t i) { s_.bits[i] = 0; });
    block_.for_each(1, [&](int32_t) {
      s_.ready[0] = s_.ready[1] = s_.ready[2] = 0;
      *s_.first_full = n;
    });
    block_.for_each(n, [&](int32_t rank) {
      s_.winner[rank] = kNowhere;
      const int32_t cell = s_.order[rank];
      if (cell == kNowhere) return;
      int32_t earlier = 0;
      for (int32_t i = 0; i < shape_.n_neighbours; ++i) {
        earlier += s_.rank[cell + s_.neighbours[i].cells] < rank;
      }
      s_.pending[cell] = earlier;
      if (earlier == 0) s_.queue[block_.add(&s_.ready[0], 1)] = cell;
    });
  }

  template <class Threads>
  SMNM_ON_BLOCK int32_t lane_bits(const Threads& threads) const {
    int32_t bits = 0;
    while (1 << bits < shape_.n_neighbours && 2 << bits <= threads.size()) ++bits;
    return bits;
  }

  // The place in `open` of the mask that takes the cell, or kNowhere.
  SMNM_ON_BLOCK int32_t choose(int32_t cell, const int32_t* open, int32_t n_open) const {
    const int32_t* here = scores_at(cell);
    return static_cast<int32_t>(choose_mask(n_open, kTaken, shape_.random_ties,
                                            shape_.random_ties ? s_.words[cell] : 0,
                                            [&](int64_t i) { return here[open[i]]; }));
  }

  // Adds `sign` times the rises of a win to the neighbours that fall to this lane.
  template <class Threads>
  SMNM_ON_BLOCK void raise(Threads& threads, int32_t cell, int32_t mask, int32_t sign, int32_t lane,
                           int32_t n_lanes) {
    for (int32_t i = lane; i < shape_.n_neighbours; i += n_lanes) {
      const RoundsNeighbour to = s_.neighbours[i];
      threads.add(&scores_at(cell + to.cells)[mask], sign * to.rise);
    }
  }

  // Ignores how much room the open masks have. Every lane of a position decides alike; what it
  // decided is written where nobody reads in this round.
  SMNM_ON_BLOCK void decide_in_rounds(int32_t n_open) {
    const int32_t bits = lane_bits(block_);
    int32_t begin = 0, turn = 0;
    for (int32_t n_ready = s_.ready[0]; n_ready > 0; n_ready = s_.ready[turn]) {
      const int32_t next = turn == 2 ? 0 : turn + 1, after = next == 2 ? 0 : next + 1;
      block_.for_each_lane(n_ready, bits, [&](int32_t i, int32_t lane) {
        const int32_t cell = s_.queue[begin + i];
        const int32_t chosen = choose(cell, s_.open, n_open);
        const int32_t mask = chosen == kNowhere ? kNowhere : s_.open[chosen];
        if (lane == 0 && i == 0) s_.ready[after] = 0;
        if (lane == 0 && mask != kNowhere) {
          const int32_t rank = s_.rank[cell];
          s_.winner[rank] = mask;
          set_bit(mask, rank);
        }
        for (int32_t j = lane; j < shape_.n_neighbours; j += 1 << bits) {
          const RoundsNeighbour neighbour = s_.neighbours[j];
          const int32_t to = cell + neighbour.cells;
          // Neighbours that are decided, and the border, only go below zero.
          const int32_t pending = block_.add(&s_.pending[to], -1);
          if (mask != kNowhere) block_.add(&scores_at(to)[mask], neighbour.rise);
          if (pending == 1) s_.queue[begin + n_ready + block_.add(&s_.ready[next], 1)] = to;
        }
      });
      begin += n_ready;
      turn = next;
    }
  }

  // The rank of the first win that fills a mask, n_tokens if none does.
  SMNM_ON_BLOCK int32_t find_first_full() {
    sum_bits();
    const int32_t n_words = shape_.n_words;
    block_.for_each(shape_.n_candidates * n_words, [&](int32_t i) {
      uint32_t word = s_.bits[i];
      if (word == 0) return;
      const int32_t mask = i / n_words;
      const int32_t wins = prefix_[i] - wins_of_masks_below(mask);
      // The win that fills the mask, counted from those in this word: 1 is the first.
      int32_t filling = s_.room[mask] - (wins - count_bits(word));
      if (filling < 1 || wins < s_.room[mask]) return;
      while (--filling > 0) word &= word - 1;
      block_.lower(s_.first_full, (i - mask * n_words) * 32 + count_bits((word & (0u - word)) - 1));
    });
    return *s_.first_full;
  }

  SMNM_ON_BLOCK int32_t wins_of_masks_below(int32_t mask) const {
    return mask == 0 ? 0 : prefix_[mask * shape_.n_words - 1];
  }

  // Wins up to rank `last` stand, and later ones are taken back.
  SMNM_ON_BLOCK void settle(int32_t last) {
    block_.for_each(shape_.n_candidates, [&](int32_t mask) {
      const int32_t i = mask * shape_.n_words + last / 32;
      const uint32_t later = (s_.bits[i] >> last % 32) >> 1;
      s_.room[mask] -= prefix_[i] - count_bits(later) - wins_of_masks_below(mask);
    });
    block_.for_each(last + 1, [&](int32_t rank) {
      const int32_t mask = s_.winner[rank];
      if (mask != kNowhere) scores_at(s_.order[rank])[mask] += kTaken;
    });
    const int32_t bits = lane_bits(block_);
    block_.for_each_lane(shape_.n_tokens - last - 1, bits, [&](int32_t i, int32_t lane) {
      const int32_t rank = last + 1 + i, mask = s_.winner[rank];
      if (mask != kNowhere) raise(block_, s_.order[rank], mask, -1, lane, 1 << bits);
    });
  }

  // The sequential algorithm, from rank `first` on. Every thread decides alike.
  template <class Few>
  SMNM_ON_BLOCK void visit_in_order(Few& few, int32_t first, int32_t n_open) {
    const int32_t bits = lane_bits(few), n = shape_.n_tokens;
    int32_t *open = s_.open, *next_open = s_.next_open;
    int32_t next = s_.order[first];
    for (int32_t rank = first; rank < n && n_open > 0; ++rank) {
      const int32_t cell = next;
      next = s_.order[rank + 1 < n ? rank + 1 : rank];  // before it is waited for
      if (cell == kNowhere) continue;
      const int32_t chosen = choose(cell, open, n_open);
      if (chosen == kNowhere) continue;
      const int32_t mask = open[chosen];
      const bool fills = s_.room[mask] == 1;
      few.barrier();
      few.for_each_lane(1, bits, [&](int32_t, int32_t lane) {
        if (lane == 0) {
          scores_at(cell)[mask] += kTaken;
          --s_.room[mask];
        }
        raise(few, cell, mask, 1, lane, 1 << bits);
      });
      if (!fills) continue;
      --n_open;
      few.for_each(n_open, [&](int32_t i) { next_open[i] = open[i + (i >= chosen)]; });
      int32_t* was = open;
      open = next_open;
      next_open = was;
    }
  }

  Block& block_;
  const RoundsShape& shape_;
  const RoundsState& s_;
  int32_t* prefix_ = nullptr;
};

}  // namespace smnm
