// RoundsShape: sizes and constants of a call. RoundsState: the arrays that the rounds of
// rbn_rounds.h keep in a block's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "integers.h"
#include "rbn_scoring.h"

#ifdef __CUDACC__
#define SMNM_ON_BLOCK __device__ __forceinline__
#else
#define SMNM_ON_BLOCK inline
#endif

namespace smnm {

constexpr int kMaxRoundsWindows = 64;
constexpr int32_t kNowhere = -1;                       // no cell, no mask, no rank
constexpr int32_t kNever = INT32_MAX;                  // the rank of a cell that no visit reaches
constexpr int64_t kChunkRows = 256;                    // rows of a batch that may share a run
constexpr int kArrays = 25;                            // of a RoundsState
constexpr int32_t kMaxWarps = 32, kMaxThreads = 1024;  // of a block

// A pair is a score and its mask in one number, score << mask_bits | mask. The mask to take is that
// of the lowest pair, which a minimum finds without branches. kTakenPair is added to the pairs of a
// mask that shows the cell, and once more if the mask is full. Memory holds score << mask_bits.
template <class Pair>
constexpr Pair kTakenPair = Pair{1} << (sizeof(Pair) == 4 ? 29 : 60);

// The lanes that share the neighbours of a position, and how many neighbours loops take at a time.
constexpr int32_t kStepBits = 4, kSteps = 1 << kStepBits;
constexpr int32_t kListedSteps = 32;
constexpr int32_t kKeysAtATime = 4;    // of a bucket
constexpr int32_t kSumsAtATime = 128;  // by a warp
constexpr int32_t kRowWidth = 4;       // tokens of a row that a thread writes at a time

// The number of scores from one cell to the next: odd, so that the scores of neighbouring cells lie
// in different banks of shared memory.
SMNM_HOST_DEVICE constexpr int32_t score_pitch_of(int32_t n_candidates) { return n_candidates | 1; }

// The bits of a mask's index.
SMNM_HOST_DEVICE constexpr int32_t mask_bits_of(int32_t n_candidates) {
  int32_t bits = 0;
  while (1 << bits < n_candidates) ++bits;
  return bits;
}

struct RoundsShape {
  struct Line {
    int32_t stride, steps, weight;
  } lines[4];
  struct Step {
    int32_t cells;
    int64_t rise;            // of a pair
  } steps[kListedSteps];     // the first of the n_steps
  int64_t offsets[kArrays];  // of the arrays of a RoundsState
  int32_t windows[kMaxRoundsWindows];
  int32_t n_windows, n_tokens, n_words, n_candidates, n_keep, n_cells, n_neighbours;
  int32_t n_steps;  // n_neighbours rounded up to a multiple of kSteps; the rest have no effect
  int32_t first_cell, cells_between_rows;
  int32_t score_pitch, mask_bits;
  int32_t row_bits;  // threads that write a row: a power of two
  Divisor<uint32_t> width;
  Divisor<uint64_t> candidates;
  int64_t bytes;  // of a RoundsState's arrays
  bool random_ties;
  bool wide_pairs;  // 64 bits; else 32
};

// Whether 32-bit indices reach every score of a bank, and kMaxThreads more.
inline bool rounds_take(const RbnLines& grid, int64_t n_candidates) {
  return grid.n_cells <= (INT32_MAX - kMaxThreads) / (n_candidates | 1);
}

inline void place_arrays(RoundsShape& shape);

// At most kMaxRoundsWindows windows, on a grid that rounds_take.
inline RoundsShape rounds_shape(const RbnLines& grid, int64_t n_tokens, int64_t width,
                                int64_t n_candidates, int64_t n_keep, const int64_t* windows,
                                int64_t n_windows, bool random_ties) {
  RoundsShape shape = {};
  for (int i = 0; i < 4; ++i) {
    const RbnLines::Line& line = grid.lines[i];
    shape.lines[i] = {static_cast<int32_t>(line.stride), static_cast<int32_t>(line.steps),
                      static_cast<int32_t>(line.weight)};
  }
  std::copy(windows, windows + n_windows, shape.windows);
  shape.n_windows = static_cast<int32_t>(n_windows);
  shape.n_tokens = static_cast<int32_t>(n_tokens);
  shape.n_words = (shape.n_tokens + 31) / 32;
  shape.n_candidates = static_cast<int32_t>(n_candidates);
  shape.n_keep = static_cast<int32_t>(n_keep);
  shape.n_cells = static_cast<int32_t>(grid.n_cells);
  shape.n_neighbours = static_cast<int32_t>(grid.n_neighbours);
  shape.mask_bits = mask_bits_of(shape.n_candidates);
  while (kRowWidth << shape.row_bits < shape.n_tokens) ++shape.row_bits;
  shape.n_steps = std::max(1, (shape.n_neighbours + kSteps - 1) / kSteps) * kSteps;
  for (int32_t i = 0; i < std::min(shape.n_neighbours, kListedSteps); ++i) {
    const RbnNeighbour to = rbn_neighbour(shape, shape.windows, shape.n_windows, i);
    shape.steps[i] = {static_cast<int32_t>(to.offset), int64_t{to.rise} << shape.mask_bits};
  }
  shape.first_cell = static_cast<int32_t>(rbn_cell(grid, 0, 0));
  shape.cells_between_rows = static_cast<int32_t>(grid.pitch - width);
  shape.score_pitch = score_pitch_of(shape.n_candidates);
  shape.width = divisor(static_cast<uint32_t>(width));
  shape.candidates = divisor(static_cast<uint64_t>(n_candidates));
  shape.random_ties = random_ties;
  int64_t reach = 0, weight = 0;
  for (int32_t i = 0; i < shape.n_windows; ++i) reach += shape.windows[i] - 1;
  for (const RoundsShape::Line& line : shape.lines) weight += line.weight;
  shape.wide_pairs = (reach * weight + 1) << shape.mask_bits > kTakenPair<int32_t>;
  place_arrays(shape);
  return shape;
}

SMNM_HOST_DEVICE int32_t cell_of(const RoundsShape& shape, int32_t token) {
  const auto y = static_cast<int32_t>(shape.width.quotient(static_cast<uint32_t>(token)));
  return shape.first_cell + token + y * shape.cells_between_rows;
}

template <class Pair>
struct RoundsNeighbour {
  int32_t cells;  // to go
  Pair rise;
};

// "Cells" are those of the bordered grid; a rank is a place in the order.
template <class Pair>
struct RoundsState {
  RoundsNeighbour<Pair>* neighbours;  // [n_steps]
  Pair* scores;                       // [cell][score_pitch]
  int32_t* rank;                      // [cell]
  int32_t* pending;                   // [cell]: neighbours to be decided before it
  int32_t* winner;    // [cell]: the mask that took it in this sweep's rounds, or kNowhere
  uint32_t* ties;     // [cell]: random words
  int32_t* order;     // [rank]: a cell, or kNowhere if a caller's order has no visit there
  uint32_t* words;    // [token], of the order
  uint64_t* keys;     // word << 32 | token, by bucket; then some above all
  int32_t* starts;    // of the buckets
  int32_t* blocker;   // [rank], of a visit in order: its last neighbour before it, or kNowhere
  int32_t* queue[2];  // cells that enter this round and the next
  uint32_t* bits;     // [mask][n_words]: wins by rank, in the end visible tokens
  int32_t* sums;      // [mask][n_words]: bits up to the end of this word
  int32_t* totals;    // of the parts of a prefix sum
  int32_t* room;      // [mask]: visible patches still to come
  Pair* bias;  // [mask]: what makes pairs of its scores: the mask, and kTakenPair if it is full
  int64_t* chunk_ids;  // sample ids of the rows that may share the run
  uint32_t* members;   // rows of the bank: row in the chunk | mask << 16
  int32_t* ready;      // [3]: how many enter the round, the next, and the one after
  int32_t* unfilled;   // masks that have room
  int32_t *first_full, *n_members, *led;

  // Calls place(array, count) for every array.
  template <class Place>
  SMNM_HOST_DEVICE void each_array(const RoundsShape& shape, Place&& place) {
    const int32_t n = shape.n_tokens, cells = shape.n_cells, masks = shape.n_candidates;
    place(scores, cells * shape.score_pitch);
    place(pending, cells);
    place(starts, (n + kSumsAtATime - 1) / kSumsAtATime * kSumsAtATime);
    place(rank, cells);  // the end of what begins as zeros
    place(neighbours, shape.n_steps);
    place(winner, cells);
    place(ties, shape.random_ties ? cells : 0);
    place(order, n);
    place(words, n);
    place(keys, n + kKeysAtATime);
    place(blocker, n);
    place(queue[0], n);
    place(queue[1], n);
    place(bits, masks * shape.n_words);
    place(sums, masks * shape.n_words);
    place(totals, kMaxWarps);
    place(room, masks);
    place(bias, masks);
    place(chunk_ids, static_cast<int32_t>(kChunkRows));
    place(members, static_cast<int32_t>(kChunkRows));
    place(ready, 3);
    place(unfilled, 1);
    place(first_full, 1);
    place(n_members, 1);
    place(led, 1);
  }
};

// Calls body(0) with a 0 of the narrowest type that holds the shape's pairs.
template <class Body>
void with_pairs(const RoundsShape& shape, const Body& body) {
  if (shape.wide_pairs) {
    body(int64_t{0});
  } else {
    body(int32_t{0});
  }
}

struct ArrayPlacer {
  int64_t *offset, bytes;

  template <class Item>
  SMNM_HOST_DEVICE void operator()(Item*&, int32_t count) {
    *offset++ = bytes;
    bytes += (static_cast<int64_t>(sizeof(Item)) * count + 15) / 16 * 16;
  }
};

inline void place_arrays(RoundsShape& shape) {
  ArrayPlacer placer = {shape.offsets, 0};
  with_pairs(shape, [&](auto pair) { RoundsState<decltype(pair)>().each_array(shape, placer); });
  shape.bytes = placer.bytes;
}

// `memory` is aligned to 16 bytes and has shape.bytes of them.
template <class Pair>
SMNM_HOST_DEVICE RoundsState<Pair> rounds_state(const RoundsShape& shape, char* memory) {
  RoundsState<Pair> state;
  const int64_t* offset = shape.offsets;
  state.each_array(shape, [&](auto*& array, int32_t) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(memory + *offset++);
  });
  return state;
}

// The tensors of one call.
struct MaskRows {
  const int64_t* sample_ids;
  int64_t batch;
  bool* visible;
  int64_t *ids_keep, *ids_restore;
  const bool* valid;  // [batch][n_tokens]: which tokens may be visible; nullptr where all may
};

}  // namespace smnm
