// Which mask takes a cell in the rounds: choose_mask of rbn_scoring.h, done by one lane alone or by
// a group of lanes, each of which looks at some of the masks.
#pragma once

#include <cstdint>
#include <type_traits>

#include "rbn_rounds_state.h"

namespace smnm {

// What a kernel knows of its shape when it is compiled. If kFew is 0, nothing is known. Else kFew
// is n_candidates, so few that a lane can read all scores of a cell into registers, and
// n_neighbours is kSteps.
template <int kFew, bool kRandomTies>
struct RoundsVariant {
  static constexpr int32_t few = kFew;
  static constexpr bool one_step = kFew > 0;

  static SMNM_HOST_DEVICE int32_t n_candidates(const RoundsShape& shape) {
    return kFew > 0 ? kFew : shape.n_candidates;
  }
  static SMNM_HOST_DEVICE int32_t score_pitch(const RoundsShape& shape) {
    return kFew > 0 ? score_pitch_of(kFew) : shape.score_pitch;
  }
  static SMNM_HOST_DEVICE int32_t mask_bits(const RoundsShape& shape) {
    return kFew > 0 ? mask_bits_of(kFew) : shape.mask_bits;
  }
  static SMNM_HOST_DEVICE bool random_ties(const RoundsShape& shape) {
    return kFew > 0 ? kRandomTies : shape.random_ties;
  }
};

using AnyVariant = RoundsVariant<0, false>;

// Calls body(a variant for shapes like this one).
template <class Body>
void with_variant(const RoundsShape& shape, const Body& body) {
  const auto with_few = [&](auto few) {
    constexpr int kFew = decltype(few)::value;
    if (shape.random_ties) {
      body(RoundsVariant<kFew, true>());
    } else {
      body(RoundsVariant<kFew, false>());
    }
  };
  const bool known = !shape.wide_pairs && shape.n_neighbours == kSteps;
  switch (known ? shape.n_candidates : 0) {
    case 2:
      return with_few(std::integral_constant<int, 2>());
    case 3:
      return with_few(std::integral_constant<int, 3>());
    case 4:
      return with_few(std::integral_constant<int, 4>());
    case 5:
      return with_few(std::integral_constant<int, 5>());
    case 6:
      return with_few(std::integral_constant<int, 6>());
    case 10:
      return with_few(std::integral_constant<int, 10>());
    default:
      return body(AnyVariant());
  }
}

template <class Variant, class Pair>
SMNM_ON_BLOCK Pair* scores_at(const RoundsShape& shape, const RoundsState<Pair>& state,
                              int32_t cell) {
  return state.scores + cell * Variant::score_pitch(shape);
}

// Neighbour first + i. If there are kSteps neighbours in all, it is in the kernel's arguments.
template <class Variant, class Pair>
SMNM_ON_BLOCK RoundsNeighbour<Pair> neighbour_at(const RoundsShape& shape,
                                                 const RoundsState<Pair>& state, int32_t first,
                                                 int32_t i) {
  if (Variant::one_step) return {shape.steps[i].cells, static_cast<Pair>(shape.steps[i].rise)};
  return state.neighbours[first + i];
}

// The masks of a bank, among which a cell chooses. While this exists, no mask may become full.
template <class Variant, class Pair>
class Candidates {
  static constexpr int kFew = Variant::few;

 public:
  SMNM_ON_BLOCK Candidates(const RoundsShape& shape, const RoundsState<Pair>& state)
      : shape_(shape), s_(state) {
    for (int32_t k = 0; k < kFew; ++k) bias_[k] = s_.bias[k];
  }

  // The pair of the mask that takes the cell; kTakenPair or more if none does. One lane reads all
  // scores.
  SMNM_ON_BLOCK Pair choose_alone(int32_t cell) const {
    const Pair* here = scores_at<Variant>(shape_, s_, cell);
    if constexpr (kFew > 0) {
      Pair pairs[kFew];
      for (int32_t k = 0; k < kFew; ++k) pairs[k] = here[k];
      for (int32_t k = 0; k < kFew; ++k) pairs[k] += bias_[k];
      const Pair least = least_of<0, kFew>(pairs);
      if (!Variant::random_ties(shape_) || least >= kTakenPair<Pair>) return least;
      uint32_t tied = 0;
      for (int32_t k = 0; k < kFew; ++k) tied |= ties(pairs[k], least) ? 1u << k : 0u;
      return with_mask(least, bit_after(tied, skipped(cell, count_bits(tied))));
    } else {
      const int32_t n = shape_.n_candidates;
      Pair least = kTakenPair<Pair>;
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
      for (int32_t k = 0; k < n; ++k) least = lower(pair(here, k), least);
      if (!Variant::random_ties(shape_) || least >= kTakenPair<Pair>) return least;
      int32_t tied = 0, mask = 0;
      for (int32_t k = 0; k < n; ++k) tied += ties(pair(here, k), least);
      for (int32_t left = skipped(cell, tied) + 1;; ++mask) {
        left -= ties(pair(here, mask), least);
        if (left == 0) return with_mask(least, mask);
      }
    }
  }

  // The same, done by all lanes of a group: lane l reads the scores of masks l, l + size and so on.
  template <class Group>
  SMNM_ON_BLOCK Pair choose_together(Group& group, int32_t cell) const {
    const int32_t n = shape_.n_candidates, size = group.size();
    const Pair* here = scores_at<Variant>(shape_, s_, cell);
    const Pair least = group.min(group.map([&](int32_t lane) {
      Pair own = kTakenPair<Pair>;
      for (int32_t k = lane; k < n; k += size) own = lower(pair(here, k), own);
      return own;
    }));
    if (!Variant::random_ties(shape_) || least >= kTakenPair<Pair>) return least;
    const auto tied_from = [&](int32_t first) {
      return group.ballot(group.map(
          [&](int32_t lane) { return first + lane < n && ties(pair(here, first + lane), least); }));
    };
    int32_t tied = 0;
    for (int32_t first = 0; first < n; first += size) tied += count_bits(tied_from(first));
    int32_t left = skipped(cell, tied);
    for (int32_t first = 0;; first += size) {
      const uint32_t bits = tied_from(first);
      const int32_t count = count_bits(bits);
      if (left < count) return with_mask(least, first + bit_after(bits, left));
      left -= count;
    }
  }

  SMNM_ON_BLOCK int32_t mask_bits() const { return Variant::mask_bits(shape_); }

  SMNM_ON_BLOCK int32_t mask_of(Pair pair) const {
    return static_cast<int32_t>(pair) & ((1 << mask_bits()) - 1);
  }

 private:
  static SMNM_ON_BLOCK Pair lower(Pair a, Pair b) { return a < b ? a : b; }

  template <int kFirst, int kEnd>
  static SMNM_ON_BLOCK Pair least_of(const Pair* pairs) {
    constexpr int kMiddle = (kFirst + kEnd) / 2;
    if constexpr (kEnd - kFirst == 1) {
      return pairs[kFirst];
    } else {
      return lower(least_of<kFirst, kMiddle>(pairs), least_of<kMiddle, kEnd>(pairs));
    }
  }

  SMNM_ON_BLOCK Pair pair(const Pair* here, int32_t k) const { return here[k] + s_.bias[k]; }

  SMNM_ON_BLOCK Pair with_mask(Pair pair, int32_t mask) const {
    return (pair >> mask_bits()) << mask_bits() | mask;
  }

  SMNM_ON_BLOCK bool ties(Pair a, Pair b) const { return (a ^ b) >> mask_bits() == 0; }

  // How many of the `tied` masks come before the one that takes the cell.
  SMNM_ON_BLOCK int32_t skipped(int32_t cell, int32_t tied) const {
    return static_cast<int32_t>(multiply_high(s_.ties[cell], static_cast<uint32_t>(tied)));
  }

  const RoundsShape& shape_;
  const RoundsState<Pair>& s_;
  Pair bias_[kFew > 0 ? kFew : 1];
};

}  // namespace smnm
