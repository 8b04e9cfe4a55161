// The work of one thread block: one row of torch.ops.smnm.rbn_masks, or one order of rbn_bank.
#pragma once

#include <cstdint>

#include "rbn_rounds.h"

namespace smnm {

// A sample's bank and its mask in the bank, as rbn_bank_of and rbn_mask_of give them.
struct RoundsSample {
  int64_t id, bank, mask;

  SMNM_ON_BLOCK RoundsSample(const RoundsShape& shape, int64_t sample_id) : id(sample_id) {
    // For a negative id, the complement of its complement's quotient is rounded down.
    const auto flip = static_cast<uint64_t>(id >> 63), value = static_cast<uint64_t>(id);
    const uint64_t quotient = shape.candidates.quotient(value ^ flip) ^ flip;
    bank = static_cast<int64_t>(quotient);
    mask = static_cast<int64_t>(value - quotient * shape.candidates.value);
  }

  // The mask of another id, if it is in the same bank; otherwise a number that is no mask's.
  SMNM_ON_BLOCK uint64_t mask_of(int64_t other) const {
    const auto away = static_cast<uint64_t>(other) - static_cast<uint64_t>(id);
    const bool wrapped = (other < id) != (static_cast<int64_t>(away) < 0);
    return wrapped ? ~uint64_t{0} : away + static_cast<uint64_t>(mask);
  }
};

// Writes masks of a bank to the rows of their samples. A thread writes kWidth tokens at a time;
// kWidth divides the tokens of a mask and of a word.
template <int kWidth, class Block, class Pair>
SMNM_ON_BLOCK void write_rows(Block& block, const RoundsShape& shape,
                              const RoundsState<Pair>& state, const MaskRows& rows, int64_t start) {
  struct alignas(kWidth) Shown {
    bool of[kWidth];
  };
  struct alignas(kWidth > 1 ? 16 : 8) Places {
    int64_t of[kWidth];
  };
  const int32_t n = shape.n_tokens, n_keep = shape.n_keep, n_members = *state.n_members;
  const int32_t bits = block.size_bits() < shape.row_bits ? block.size_bits() : shape.row_bits;
  bool* visible = rows.visible + start * n;
  int64_t *ids_restore = rows.ids_restore + start * n, *ids_keep = rows.ids_keep + start * n_keep;
  block.for_each_group(n_members, bits, [&](auto& group, int32_t m) {
    const uint32_t member = state.members[m], row = member & 0xFFFF;
    const int32_t first_word = static_cast<int32_t>(member >> 16) * shape.n_words;
    int64_t* keep = ids_keep + uint64_t{row} * static_cast<uint32_t>(n_keep);
    const uint64_t to = uint64_t{row} * static_cast<uint32_t>(n);
    group.each([&](int32_t lane) {
      for (int32_t token = lane * kWidth; token < n; token += group.size() * kWidth) {
        const int32_t word = first_word + token / 32;
        const uint32_t from_here = state.bits[word] >> token % 32;
        int32_t before = state.sums[word] - count_bits(from_here);
        Shown shown;
        Places places;
        for (int32_t j = 0; j < kWidth; ++j) {
          shown.of[j] = (from_here >> j & 1) != 0;
          places.of[j] = shown.of[j] ? before : n_keep + token + j - before;
          if (shown.of[j]) keep[before] = token + j;
          before += shown.of[j];
        }
        *reinterpret_cast<Shown*>(visible + to + token) = shown;
        *reinterpret_cast<Places*>(ids_restore + to + token) = places;
      }
    });
  });
}

// The block's work for one row. Rows are in chunks of kChunkRows. In each chunk, the first row of a
// bank runs the bank and writes all rows of that bank; the other rows do nothing. With `valid`,
// whose rows differ, each row runs its bank for itself. A row with fewer valid tokens than n_keep
// shows only these, and the rest of its ids_keep is not written. Returns whether this row ran its
// bank.
template <class Variant, class Block, class Pair>
SMNM_ON_BLOCK bool run_masks_row(Block& block, const RoundsShape& shape,
                                 const RoundsState<Pair>& state, const MaskRows& rows, int64_t row,
                                 int64_t seed) {
  const int64_t id = rows.sample_ids[row], start = row / kChunkRows * kChunkRows;
  const auto row_in_chunk = static_cast<int32_t>(row - start);
  const int64_t left = rows.batch - start;
  const auto n_rows = static_cast<int32_t>(left < kChunkRows ? left : kChunkRows);
  block.once([&] { *state.led = *state.n_members = 0; });
  block.for_each(n_rows, [&](int32_t i) { state.chunk_ids[i] = rows.sample_ids[start + i]; });
  begin_bank(block, shape, state);
  block.barrier();
  const RoundsSample sample(shape, id);
  block.for_each(n_rows, [&](int32_t i) {
    const uint64_t mask = sample.mask_of(state.chunk_ids[i]);
    if (mask >= static_cast<uint64_t>(shape.n_candidates)) return;
    if (rows.valid != nullptr && i != row_in_chunk) return;
    if (i < row_in_chunk) {
      block.lower(state.led, -1);
    } else {
      state.members[block.add(state.n_members, 1)] =
          static_cast<uint32_t>(i) | static_cast<uint32_t>(mask) << 16;
    }
  });
  block.barrier();
  if (*state.led != 0) return false;
  draw_order(block, shape, state, seed, sample.bank);
  if (rows.valid != nullptr) leave_out(block, shape, state, rows.valid + row * shape.n_tokens);
  run_sweeps<Variant>(block, shape, state, seed, sample.bank);
  list_visible<Variant>(block, shape, state);
  if (shape.n_tokens % kRowWidth == 0) {
    write_rows<kRowWidth>(block, shape, state, rows, start);
  } else {
    write_rows<1>(block, shape, state, rows, start);
  }
  return true;
}

// The block's work for one of the caller's orders. Writes `visible` bool [K][N].
template <class Variant, class Block, class Pair>
SMNM_ON_BLOCK void run_order(Block& block, const RoundsShape& shape, const RoundsState<Pair>& state,
                             const int64_t* order, int64_t seed, int64_t bank, bool* visible) {
  begin_bank(block, shape, state);
  block.barrier();
  take_order(block, shape, state, order);
  run_sweeps<Variant>(block, shape, state, seed, bank);
  block.for_each(shape.n_tokens, [&](int32_t token) {
    const Pair* here = scores_at<Variant>(shape, state, cell_of(shape, token));
    for (int32_t k = 0; k < shape.n_candidates; ++k) {
      visible[k * int64_t{shape.n_tokens} + token] = here[k] >= kTakenPair<Pair>;
    }
  });
}

}  // namespace smnm
