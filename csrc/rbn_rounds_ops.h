// What one thread block does for one row of torch.ops.smnm.rbn_masks, or one order of rbn_bank.
#pragma once

#include <cstdint>

#include "rbn_rounds.h"

namespace smnm {

// What the block of one row does. Rows stand in chunks of kChunkRows; the first row of a bank in
// its chunk runs the bank and writes every row of it in the chunk, the other rows do nothing. True
// if this row was the first.
template <class Block>
SMNM_ON_BLOCK bool run_masks_row(Block& block, const RoundsShape& shape, const RoundsState& state,
                                 const MaskRows& rows, int64_t row, int64_t seed) {
  const int64_t n_candidates = shape.n_candidates;
  const int64_t bank = rbn_bank_of(rows.sample_ids[row], n_candidates);
  const int64_t start = row / kChunkRows * kChunkRows;
  const int64_t left = rows.batch - start;
  block.for_each(1, [&](int32_t) {
    *state.led = 0;
    *state.n_members = 0;
  });
  block.for_each(static_cast<int32_t>(left < kChunkRows ? left : kChunkRows), [&](int32_t i) {
    const int64_t id = rows.sample_ids[start + i];
    if (rbn_bank_of(id, n_candidates) != bank) return;
    const auto mask = static_cast<uint32_t>(rbn_mask_of(id, n_candidates));
    if (start + i < row) {
      block.lower(state.led, -1);
    } else {
      state.members[block.add(state.n_members, 1)] = static_cast<uint32_t>(i) | mask << 16;
    }
  });
  if (*state.led != 0) return false;
  RoundsBank<Block> runner(block, shape, state);
  runner.begin();
  runner.draw_order(seed, bank);
  runner.run(seed, bank);
  runner.list_visible();
  const int64_t n = shape.n_tokens, n_keep = shape.n_keep;
  const int32_t n_members = *state.n_members;
  block.for_each(shape.n_tokens, [&](int32_t token) {
    for (int32_t m = 0; m < n_members; ++m) {
      const uint32_t member = state.members[m];
      const auto mask = static_cast<int32_t>(member >> 16);
      const int64_t to = start + (member & 0xFFFF), before = runner.visible_before(mask, token);
      const bool shown = runner.visible(mask, token);
      rows.visible[to * n + token] = shown;
      rows.ids_restore[to * n + token] = shown ? before : n_keep + token - before;
      if (shown) rows.ids_keep[to * n_keep + before] = token;
    }
  });
  return true;
}

// What the block of one of the caller's orders does: `visible` is bool [K][N].
template <class Block>
SMNM_ON_BLOCK void run_order(Block& block, const RoundsShape& shape, const RoundsState& state,
                             const int64_t* order, int64_t seed, int64_t bank, bool* visible) {
  RoundsBank<Block> runner(block, shape, state);
  runner.begin();
  runner.take_order(order);
  runner.run(seed, bank);
  runner.list_visible();
  block.for_each(shape.n_tokens, [&](int32_t token) {
    for (int32_t k = 0; k < shape.n_candidates; ++k) {
      visible[k * int64_t{shape.n_tokens} + token] = runner.visible(k, token);
    }
  });
}

}  // namespace smnm
