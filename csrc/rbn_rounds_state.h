// What the rounds of rbn_rounds.h keep in a block's memory, and the shape that decides how much.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "rbn_scoring.h"

namespace smnm {

constexpr int kMaxRoundsWindows = 64;
constexpr int32_t kNowhere = -1;       // no cell, no mask
constexpr int32_t kNever = INT32_MAX;  // the rank of a cell that no visit reaches
constexpr int64_t kChunkRows = 256;    // rows of a batch that may share a run
constexpr int64_t kMaxThreads = 1024;

struct RoundsShape {
  RbnLines grid;
  int64_t windows[kMaxRoundsWindows];
  int32_t n_windows, width, n_tokens, n_words, n_candidates, n_keep, n_cells, n_neighbours;
  bool random_ties;
};

// Whether 32-bit indices reach every score of a bank, and a stride of threads beyond.
inline bool rounds_take(const RbnLines& grid, int64_t n_candidates) {
  return grid.n_cells <= (INT32_MAX - kMaxThreads) / n_candidates;
}

// At most kMaxRoundsWindows windows, on a grid that rounds_take.
inline RoundsShape rounds_shape(const RbnLines& grid, int64_t n_tokens, int64_t width,
                                int64_t n_candidates, int64_t n_keep, const int64_t* windows,
                                int64_t n_windows, bool random_ties) {
  RoundsShape shape = {};
  shape.grid = grid;
  std::copy(windows, windows + n_windows, shape.windows);
  shape.n_windows = static_cast<int32_t>(n_windows);
  shape.width = static_cast<int32_t>(width);
  shape.n_tokens = static_cast<int32_t>(n_tokens);
  shape.n_words = (shape.n_tokens + 31) / 32;
  shape.n_candidates = static_cast<int32_t>(n_candidates);
  shape.n_keep = static_cast<int32_t>(n_keep);
  shape.n_cells = static_cast<int32_t>(grid.n_cells);
  shape.n_neighbours = static_cast<int32_t>(grid.n_neighbours);
  shape.random_ties = random_ties;
  return shape;
}

struct RoundsNeighbour {
  int32_t cells;  // to go
  int32_t rise;
};

// "Cells" are those of the bordered grid; a rank is a place in the order.
struct RoundsState {
  RoundsNeighbour* neighbours;
  int32_t* scores;            // [cell][mask], plus kTaken where the mask shows the cell
  int32_t* rank;              // [cell]
  int32_t* pending;           // [cell]: neighbours to be decided before it
  int32_t* cell_of;           // [token]
  int32_t* order;             // [rank]: a cell, or kNowhere if a caller's order has no visit there
  int32_t* queue;             // cells as they enter the rounds
  int32_t* winner;            // [rank]: a mask, or kNowhere
  uint32_t* words;            // of the order by token, then of the ties by cell
  uint32_t* bits;             // [mask][n_words]: wins by rank, in the end visible tokens
  int32_t *sums, *more_sums;  // two buffers for prefix sums over tokens or over bits
  int32_t* room;              // [mask]: visible patches still to come
  int32_t *open, *next_open;  // masks with room, ascending
  uint32_t* members;          // rows of the bank: row in the chunk | mask << 16
  int32_t* ready;             // [3]: how many enter the round, the next, and the one after
  int32_t *n_open, *first_full, *n_members, *led;

  // Calls place(array, count) for every array.
  template <class Place>
  SMNM_HOST_DEVICE void each_array(const RoundsShape& shape, const Place& place) {
    const int32_t n = shape.n_tokens, cells = shape.n_cells, masks = shape.n_candidates;
    const int32_t n_bits = masks * shape.n_words, n_sums = n > n_bits ? n : n_bits;
    place(neighbours, shape.n_neighbours);
    place(scores, cells * masks);
    place(rank, cells);
    place(pending, cells);
    place(cell_of, n);
    place(order, n);
    place(queue, n);
    place(winner, n);
    place(words, shape.random_ties ? cells : n);
    place(bits, n_bits);
    place(sums, n_sums);
    place(more_sums, n_sums);
    place(room, masks);
    place(open, masks);
    place(next_open, masks);
    place(members, static_cast<int32_t>(kChunkRows));
    place(ready, 3);
    place(n_open, 1);
    place(first_full, 1);
    place(n_members, 1);
    place(led, 1);
  }
};

SMNM_HOST_DEVICE size_t rounds_array_bytes(size_t item, int32_t count) {
  return (item * count + 15) / 16 * 16;
}

SMNM_HOST_DEVICE size_t rounds_bytes(const RoundsShape& shape) {
  size_t bytes = 0;
  RoundsState().each_array(shape, [&](auto*& array, int32_t count) {
    bytes += rounds_array_bytes(sizeof(*array), count);
  });
  return bytes;
}

// `memory` is aligned to 16 bytes and has rounds_bytes(shape) of them.
SMNM_HOST_DEVICE RoundsState rounds_state(const RoundsShape& shape, char* memory) {
  RoundsState state;
  state.each_array(shape, [&](auto*& array, int32_t count) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(memory);
    memory += rounds_array_bytes(sizeof(*array), count);
  });
  return state;
}

// The tensors of one call.
struct MaskRows {
  const int64_t* sample_ids;
  int64_t batch;
  bool* visible;
  int64_t *ids_keep, *ids_restore;
};

}  // namespace smnm
