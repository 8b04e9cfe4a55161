// The sweep of rbn_few.h, in one path's code.

namespace smnm {
namespace {

// The mask that takes a position, or -1: choose_mask() of rbn_scoring.h. `first` points to the
// score of mask 0.
#ifdef SMNM_AVX2

template <int kMasks>
SMNM_INLINE int64_t choose_of_few(const FewMasks& masks, const uint16_t* first,
                                  const uint32_t* word) {
  __m128i scores = _mm_cvtsi32_si128(first[0]);
#define SMNM_INSERT(k) \
  if constexpr (kMasks > k) scores = _mm_insert_epi16(scores, first[k * masks.plane], k);
  SMNM_INSERT(1)
  SMNM_INSERT(2)
  SMNM_INSERT(3)
  SMNM_INSERT(4)
  SMNM_INSERT(5)
  SMNM_INSERT(6)
  SMNM_INSERT(7)
#undef SMNM_INSERT
  scores = _mm_add_epi16(scores, load<__m128i>(masks.full));
  const __m128i lowest = _mm_minpos_epu16(scores);  // followed by its first index
  const auto found = static_cast<uint32_t>(_mm_cvtsi128_si32(lowest));
  if ((found & 0xFFFF) >= kTakenShort) return -1;
  if (word == nullptr) return found >> 16;
  const __m128i tied = _mm_cmpeq_epi16(scores, _mm_broadcastw_epi16(lowest));
  const auto bits = static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(tied, tied)) & 0xFF);
  return bit_after(bits, static_cast<int32_t>(uint64_t{*word} * count_bits(bits) >> 32));
}

#else

template <int kMasks>
SMNM_INLINE int64_t choose_of_few(const FewMasks& masks, const uint16_t* first,
                                  const uint32_t* word) {
  return choose_mask(kMasks, kTakenShort, word != nullptr, word == nullptr ? 0 : *word,
                     [&](int64_t k) { return first[k * masks.plane] + masks.full[k]; });
}

#endif

typedef uint16_t FewLanes __attribute__((vector_size(2 * kFewLanes)));

template <int kMasks, bool kRandomTies>
void sweep_few_masks(FewMasks& given, const RbnVisits& visits) {
  FewMasks masks = given;  // a local, which the stores of scores cannot alias
  for (int64_t i = 0; i < visits.n; ++i) visits.winners[i] = -1;
  for (int64_t i = 0; i < visits.n && masks.unfilled > 0; ++i) {
    uint16_t* first = masks.scores + visits.cells[i];
    const int64_t winner =
        choose_of_few<kMasks>(masks, first, kRandomTies ? visits.words + i : nullptr);
    if (winner < 0) continue;
    visits.winners[i] = static_cast<int16_t>(winner);
    uint16_t* to = first + winner * masks.plane + masks.first_rise;
    const uint16_t* rises = masks.rises;
    for (int64_t row = 0; row < masks.n_rows; ++row, to += masks.pitch, rises += kFewLanes) {
      store(to, load<FewLanes>(to) + load<FewLanes>(rises));
    }
    if (--masks.room[winner] == 0) {
      masks.full[winner] = kTakenShort;
      --masks.unfilled;
    }
  }
  given = masks;
}

template <int kMasks>
void sweep_masks(FewMasks& masks, const RbnVisits& visits) {
  if (visits.words == nullptr) {
    sweep_few_masks<kMasks, false>(masks, visits);
  } else {
    sweep_few_masks<kMasks, true>(masks, visits);
  }
}

void sweep_few(FewMasks& masks, const RbnVisits& visits) {
  static constexpr void (*kOfMasks[kFewLanes])(FewMasks&, const RbnVisits&) = {
      sweep_masks<1>, sweep_masks<2>, sweep_masks<3>, sweep_masks<4>,
      sweep_masks<5>, sweep_masks<6>, sweep_masks<7>, sweep_masks<8>};
  kOfMasks[masks.n_masks - 1](masks, visits);
}

}  // namespace
}  // namespace smnm
