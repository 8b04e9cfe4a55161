// The order in which a block visits the cells of a bank: the bank's own, or a caller's.
#pragma once

#include <cstdint>
#include <type_traits>

#include "philox.h"
#include "rbn_rounds_state.h"

namespace smnm {

// Replaces values[n] by their prefix sums, each value's own included. Each warp sums a part of
// them, some rows of lanes at a time. From n up to a multiple of kSumsAtATime, the values must be
// zeros.
template <class Block>
SMNM_ON_BLOCK void sum_prefixes(Block& block, int32_t* values, int32_t n, int32_t* totals) {
  constexpr int32_t kRows = 4;
  const int32_t bits = block.max_group_bits(), size = 1 << bits, n_parts = block.size() >> bits;
  const int32_t part = ((n - 1) / (n_parts * kRows * size) + 1) * kRows * size;
  block.for_each_group((n - 1) / part + 1, bits, [&](auto& warp, int32_t i) {
    const int32_t end = n - part < i * part ? n : (i + 1) * part;
    int32_t before = 0;
    for (int32_t first = i * part; first < end; first += kRows * size) {
      typename std::decay_t<decltype(warp)>::template Lanes<int32_t> sums[kRows];
      for (int32_t row = 0; row < kRows; ++row) {
        sums[row] = warp.map([&](int32_t lane) { return values[first + row * size + lane]; });
      }
      warp.make_prefix_sums(sums);
      for (int32_t row = 0; row < kRows; ++row) {
        warp.each(
            [&](int32_t lane) { values[first + row * size + lane] = before + sums[row][lane]; });
        before += warp.at(sums[row], size - 1);
      }
    }
    warp.each([&](int32_t lane) {
      if (lane == 0) totals[i] = before;
    });
  });
  block.barrier();
  block.for_each_group((n - 1) / size + 1, bits, [&](auto& warp, int32_t i) {
    const int32_t parts_before = i * size / part;
    if (parts_before == 0) return;
    const int32_t before = warp.sum(warp.map([&](int32_t lane) {
      int32_t sum = 0;
      for (int32_t j = lane; j < parts_before; j += size) sum += totals[j];
      return sum;
    }));
    warp.each([&](int32_t lane) { values[i * size + lane] += before; });
  });
  block.barrier();
}

// Draws one Philox block of a sweep and calls take(token, word) for each of its four words.
template <class Take>
SMNM_ON_BLOCK void draw_words(const RoundsShape& shape, const PhiloxSequence& sequence,
                              int32_t sweep, int32_t block, const Take& take) {
  const int32_t n_blocks = (shape.n_tokens + 3) / 4;
  uint32_t drawn[4];
  philox_block(sequence, static_cast<uint32_t>(int64_t{sweep} * n_blocks + block), drawn);
  for (int32_t j = 0; j < 4; ++j) {
    const int32_t token = j * n_blocks + block;
    if (token < shape.n_tokens) take(token, drawn[j]);
  }
}

// Draws the random words that break the ties of a sweep.
template <class Block, class Pair>
SMNM_ON_BLOCK void draw_ties(Block& block, const RoundsShape& shape, const RoundsState<Pair>& state,
                             int64_t seed, int64_t bank, int32_t sweep) {
  if (!shape.random_ties) return;
  const PhiloxSequence sequence = philox_sequence(seed, kTie, bank);
  block.for_each((shape.n_tokens + 3) / 4, [&](int32_t b) {
    draw_words(shape, sequence, sweep, b,
               [&](int32_t token, uint32_t word) { state.ties[cell_of(shape, token)] = word; });
  });
}

SMNM_ON_BLOCK int32_t bucket_of(const RoundsShape& shape, uint32_t word) {
  return static_cast<int32_t>(multiply_high(word, static_cast<uint32_t>(shape.n_tokens)));
}

// Draws the random order of a bank: tokens by their random word, then by index. Tokens are put into
// buckets by word, about one in each; a token's rank is the start of its bucket plus the number of
// lower keys in the bucket. Before the call, `starts` must be all zero and `rank` all kNever.
template <class Block, class Pair>
SMNM_ON_BLOCK void draw_order(Block& block, const RoundsShape& shape,
                              const RoundsState<Pair>& state, int64_t seed, int64_t bank) {
  const int32_t n = shape.n_tokens;
  const PhiloxSequence sequence = philox_sequence(seed, kOrder, bank);
  block.for_each((n + 3) / 4, [&](int32_t b) {
    draw_words(shape, sequence, 0, b, [&](int32_t token, uint32_t word) {
      state.words[token] = word;
      block.add(&state.starts[bucket_of(shape, word)], 1);
    });
  });
  block.barrier();
  sum_prefixes(block, state.starts, n, state.totals);
  // Each token takes the last free place of its bucket. In the end, `starts` has the bucket's
  // start.
  block.for_each(n, [&](int32_t token) {
    const uint32_t word = state.words[token];
    const int32_t place = block.add(&state.starts[bucket_of(shape, word)], -1) - 1;
    state.keys[place] = uint64_t{word} << 32 | static_cast<uint32_t>(token);
  });
  block.for_each(kKeysAtATime, [&](int32_t i) { state.keys[n + i] = ~uint64_t{0}; });
  block.barrier();
  block.for_each(n, [&](int32_t place) {
    const uint64_t key = state.keys[place];
    const int32_t bucket = bucket_of(shape, static_cast<uint32_t>(key >> 32));
    const int32_t end = bucket + 1 < n ? state.starts[bucket + 1] : n;
    int32_t rank = state.starts[bucket];
    // Keys beyond the bucket are larger than all keys in it, so they do not count.
    for (int32_t first = rank; first < end; first += kKeysAtATime) {
      for (int32_t i = 0; i < kKeysAtATime; ++i) rank += state.keys[first + i] < key;
    }
    const int32_t cell = cell_of(shape, static_cast<int32_t>(key));
    state.order[rank] = cell;
    state.rank[cell] = rank;
  });
  block.barrier();
}

// Leaves tokens out of an order that was drawn: as take_order does with those that a caller's order
// repeats.
template <class Block, class Pair>
SMNM_ON_BLOCK void leave_out(Block& block, const RoundsShape& shape, const RoundsState<Pair>& state,
                             const bool* valid) {
  block.for_each(shape.n_tokens, [&](int32_t token) {
    if (valid[token]) return;
    const int32_t cell = cell_of(shape, token);
    state.order[state.rank[cell]] = kNowhere;
    state.rank[cell] = kNever;
  });
  block.barrier();
}

// Takes a caller's order. Tokens out of range or repeated are not visited. Before the call, `rank`
// must be all kNever.
template <class Block, class Pair>
SMNM_ON_BLOCK void take_order(Block& block, const RoundsShape& shape,
                              const RoundsState<Pair>& state, const int64_t* tokens) {
  const int32_t n = shape.n_tokens;
  block.for_each(n, [&](int32_t rank) {
    const int64_t token = tokens[rank];
    const bool inside = token >= 0 && token < n;
    const int32_t cell = inside ? cell_of(shape, static_cast<int32_t>(token)) : kNowhere;
    state.order[rank] = cell;
    if (inside) block.lower(&state.rank[cell], rank);
  });
  block.barrier();
  block.for_each(n, [&](int32_t rank) {
    const int32_t cell = state.order[rank];
    if (cell != kNowhere && state.rank[cell] != rank) state.order[rank] = kNowhere;
  });
  block.barrier();
}

}  // namespace smnm
