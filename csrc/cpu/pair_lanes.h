// What pair_filter.h takes from the instructions of a path: SSE2, or AVX2 where the path has it.
// Lanes of 32 bits hold a sum or two 16-bit values. Interleaving and packing work within each 128
// bits.

namespace smnm {
namespace {

#ifdef SMNM_AVX2

// To each sum, the products of two values and their weights.
SMNM_INLINE IntLanes multiply_add(IntLanes sum, IntLanes values, IntLanes weights) {
#ifdef SMNM_AVX_VNNI
  return (IntLanes)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)values, (__m256i)weights);
#else
  return sum + (IntLanes)_mm256_madd_epi16((__m256i)values, (__m256i)weights);
#endif
}

SMNM_INLINE IntLanes interleave_low(IntLanes a, IntLanes b) {
  return (IntLanes)_mm256_unpacklo_epi16((__m256i)a, (__m256i)b);
}
SMNM_INLINE IntLanes interleave_high(IntLanes a, IntLanes b) {
  return (IntLanes)_mm256_unpackhi_epi16((__m256i)a, (__m256i)b);
}

// Numbers of 32 bits as 16-bit values, four of `a`, four of `b`, and so on, clamped.
SMNM_INLINE IntLanes pack(IntLanes a, IntLanes b, int16_t most) {
  const __m256i both = _mm256_packs_epi32((__m256i)a, (__m256i)b);
  const __m256i not_above = _mm256_min_epi16(both, _mm256_set1_epi16(most));
  return (IntLanes)_mm256_max_epi16(not_above, _mm256_set1_epi16(-most));
}

// The sums of even and odd outputs, in their own order.
SMNM_INLINE void store_sums(int32_t* to, IntLanes even, IntLanes odd) {
  const __m256i low = _mm256_unpacklo_epi32((__m256i)even, (__m256i)odd);
  const __m256i high = _mm256_unpackhi_epi32((__m256i)even, (__m256i)odd);
  store(to, _mm256_permute2x128_si256(low, high, 0x20));
  store(to + 8, _mm256_permute2x128_si256(low, high, 0x31));
}

#else

SMNM_INLINE IntLanes multiply_add(IntLanes sum, IntLanes values, IntLanes weights) {
  return sum + (IntLanes)_mm_madd_epi16((__m128i)values, (__m128i)weights);
}

SMNM_INLINE IntLanes interleave_low(IntLanes a, IntLanes b) {
  return (IntLanes)_mm_unpacklo_epi16((__m128i)a, (__m128i)b);
}
SMNM_INLINE IntLanes interleave_high(IntLanes a, IntLanes b) {
  return (IntLanes)_mm_unpackhi_epi16((__m128i)a, (__m128i)b);
}

SMNM_INLINE IntLanes pack(IntLanes a, IntLanes b, int16_t most) {
  const __m128i both = _mm_packs_epi32((__m128i)a, (__m128i)b);
  return (IntLanes)_mm_max_epi16(_mm_min_epi16(both, _mm_set1_epi16(most)), _mm_set1_epi16(-most));
}

SMNM_INLINE void store_sums(int32_t* to, IntLanes even, IntLanes odd) {
  store(to, _mm_unpacklo_epi32((__m128i)even, (__m128i)odd));
  store(to + 4, _mm_unpackhi_epi32((__m128i)even, (__m128i)odd));
}

#endif

}  // namespace
}  // namespace smnm
