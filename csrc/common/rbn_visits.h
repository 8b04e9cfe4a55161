// The rest of a sweep after a mask is full: one warp makes the visits in order.
//
// Each lane decides one of the next visits, all at once. A decision depends on earlier neighbours
// and on which masks are full. So the decisions of the first lanes are valid, up to the first visit
// that has a neighbour among those before it, or that chose a mask which those before it fill; the
// rest is decided again. (A mask that fills changes nothing for visits that chose another: the
// lowest score stays the lowest. With random ties it does, as it may have been one of the tied.)
// The first visit is always valid.
#pragma once

#include <cstdint>

#include "rbn_choice.h"
#include "rbn_rounds_state.h"

namespace smnm {

// For each lane, the lanes that have the same value, as bits. Values have value_bits.
template <class Group, class Values>
SMNM_ON_BLOCK auto lanes_alike(Group& group, const Values& values, int32_t value_bits) {
  auto alike = group.map([&](int32_t) { return ~0u; });
  for (int32_t bit = 0; bit < value_bits; ++bit) {
    const uint32_t set = group.ballot(group.map(
        [&](int32_t lane) { return (static_cast<uint32_t>(values[lane]) >> bit & 1) != 0; }));
    group.each([&](int32_t lane) {
      alike[lane] &= (static_cast<uint32_t>(values[lane]) >> bit & 1) != 0 ? set : ~set;
    });
  }
  return alike;
}

// Makes the visits from rank `first` on; there must be one. `blocker` must be known for them.
template <class Variant, class Group, class Block, class Pair>
SMNM_ON_BLOCK void visit_in_order(Group& warp, Block& block, const RoundsShape& shape,
                                  const RoundsState<Pair>& state, int32_t first) {
  // So many wide pairs would not fit in registers.
  constexpr int32_t kAtATime = sizeof(Pair) == 4 ? kSteps : kSteps / 2;
  const int32_t n = shape.n_tokens;
  int32_t unfilled = *state.unfilled;
  while (first < n && unfilled > 0) {
    const int32_t left = n - first < warp.size() ? n - first : warp.size();
    const Candidates<Variant, Pair> candidates(shape, state);
    const auto rank = warp.map([&](int32_t lane) { return first + (lane < left ? lane : 0); });
    const auto cell = warp.map([&](int32_t lane) { return state.order[rank[lane]]; });
    const auto blocked = warp.map([&](int32_t lane) { return state.blocker[rank[lane]] >= first; });
    const auto chosen = warp.map([&](int32_t lane) {
      return candidates.choose_alone(cell[lane] == kNowhere ? shape.first_cell : cell[lane]);
    });
    const auto mask = warp.map([&](int32_t lane) { return candidates.mask_of(chosen[lane]); });
    const auto takes = warp.map([&](int32_t lane) {
      return lane < left && cell[lane] != kNowhere && chosen[lane] < kTakenPair<Pair>;
    });
    const uint32_t taking = warp.ballot(takes);
    const auto alike = lanes_alike(warp, mask, candidates.mask_bits());
    // The room that the lanes before leave, if all their decisions are valid.
    const auto room = warp.map([&](int32_t lane) {
      return state.room[mask[lane]] - count_bits(alike[lane] & taking & low_bits(lane));
    });
    int32_t stand = lowest_bit(warp.ballot(
        warp.map([&](int32_t lane) { return blocked[lane] || (takes[lane] && room[lane] <= 0); })));
    if (Variant::random_ties(shape)) {
      const uint32_t filling =
          warp.ballot(warp.map([&](int32_t lane) { return takes[lane] && room[lane] == 1; }));
      const int32_t filled = lowest_bit(filling) + 1;
      stand = filled < stand ? filled : stand;
    }
    stand = stand < left ? stand : left;
    const uint32_t standing = taking & low_bits(stand);
    warp.barrier();
    unfilled -= count_bits(warp.ballot(warp.map([&](int32_t lane) {
      // The first lane of each mask counts for all.
      const uint32_t same = alike[lane] & standing;
      if (lane != lowest_bit(same)) return false;
      const int32_t still = room[lane] - count_bits(same);
      state.room[mask[lane]] = still;
      if (still == 0) state.bias[mask[lane]] += kTakenPair<Pair>;
      return still == 0;
    })));
    warp.each([&](int32_t lane) {
      if ((standing >> lane & 1) == 0) return;
      Pair* here = scores_at<Variant>(shape, state, cell[lane]) + mask[lane];
      block.add(here, kTakenPair<Pair>);
      int32_t at = 0;
      do {
        RoundsNeighbour<Pair> to[kAtATime];
        for (int32_t i = 0; i < kAtATime; ++i) to[i] = neighbour_at<Variant>(shape, state, at, i);
        for (int32_t i = 0; i < kAtATime; ++i) {
          if (!Variant::one_step && to[i].rise == 0) continue;
          block.add(here + to[i].cells * Variant::score_pitch(shape), to[i].rise);
        }
        at += kAtATime;
      } while (!Variant::one_step && at < shape.n_steps);
    });
    warp.barrier();
    first += stand;
  }
  // If no visit was made, other lanes may still be reading `unfilled`.
  warp.barrier();
  warp.each([&](int32_t lane) {
    if (lane == 0) *state.unfilled = unfilled;
  });
}

}  // namespace smnm
