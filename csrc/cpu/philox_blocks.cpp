// Philox on vectors. Compilers make poor code of 32x32 -> 64 bit products, so the x86 versions are
// written out: a state word in each 64-bit lane, whose upper half may hold anything, because the
// multiplication reads only the lower half and nothing else looks before the end.
#include "philox_blocks.h"

#include "simd.h"
#include "vector_path.h"

namespace smnm {
namespace {

void blocks_scalar(const PhiloxSequence& s, uint32_t first, int64_t n, int64_t stride,
                   uint32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t words[4];
    philox_block(s, first + static_cast<uint32_t>(i), words);
    for (int j = 0; j < 4; ++j) out[j * stride + i] = words[j];
  }
}

#ifdef SMNM_X86

// Four vectors at a time hide the latency of the multiplications.
constexpr int kUnrolled = 4;

SMNM_TARGET("avx2")
void blocks_avx2(const PhiloxSequence& s, uint32_t first, int64_t n, int64_t stride,
                 uint32_t* out) {
  constexpr int64_t kStep = 4 * kUnrolled;
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  const __m256i lower_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  __m256i keys0[10], keys1[10];
  for (uint32_t round = 0; round < 10; ++round) {
    keys0[round] = _mm256_set1_epi64x(s.key0 + round * kPhiloxWeyl0);
    keys1[round] = _mm256_set1_epi64x(s.key1 + round * kPhiloxWeyl1);
  }
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    __m256i c[4][kUnrolled];
    for (int u = 0; u < kUnrolled; ++u) {
      const __m256i block = _mm256_set1_epi64x(first + static_cast<uint32_t>(i + 4 * u));
      c[0][u] = _mm256_add_epi64(block, _mm256_setr_epi64x(0, 1, 2, 3));
      c[1][u] = _mm256_set1_epi64x(s.purpose);
      c[2][u] = _mm256_set1_epi64x(s.id_low);
      c[3][u] = _mm256_set1_epi64x(s.id_high);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      for (int u = 0; u < kUnrolled; ++u) {
        const __m256i product0 = _mm256_mul_epu32(c[0][u], multiplier0);
        const __m256i product1 = _mm256_mul_epu32(c[2][u], multiplier1);
        const __m256i high1 = _mm256_srli_epi64(product1, 32);
        const __m256i high0 = _mm256_srli_epi64(product0, 32);
        c[0][u] = _mm256_xor_si256(high1, _mm256_xor_si256(c[1][u], keys0[round]));
        c[2][u] = _mm256_xor_si256(high0, _mm256_xor_si256(c[3][u], keys1[round]));
        c[1][u] = product1;
        c[3][u] = product0;
      }
    }
    for (int j = 0; j < 4; ++j) {
      for (int u = 0; u < kUnrolled; ++u) {
        const __m256i words = _mm256_permutevar8x32_epi32(c[j][u], lower_halves);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + j * stride + i + 4 * u),
                         _mm256_castsi256_si128(words));
      }
    }
  }
  blocks_scalar(s, first + static_cast<uint32_t>(i), n - i, stride, out + i);
}

SMNM_TARGET("avx512f")
void blocks_avx512(const PhiloxSequence& s, uint32_t first, int64_t n, int64_t stride,
                   uint32_t* out) {
  constexpr int64_t kStep = 8 * kUnrolled;
  constexpr int kXor3 = 0x96;  // truth table of a ^ b ^ c
  const __m512i multiplier0 = _mm512_set1_epi64(kPhiloxMultiplier0);
  const __m512i multiplier1 = _mm512_set1_epi64(kPhiloxMultiplier1);
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    __m512i c[4][kUnrolled];
    for (int u = 0; u < kUnrolled; ++u) {
      const __m512i block = _mm512_set1_epi64(first + static_cast<uint32_t>(i + 8 * u));
      c[0][u] = _mm512_add_epi64(block, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
      c[1][u] = _mm512_set1_epi64(s.purpose);
      c[2][u] = _mm512_set1_epi64(s.id_low);
      c[3][u] = _mm512_set1_epi64(s.id_high);
    }
    uint32_t key0 = s.key0, key1 = s.key1;
    for (int round = 0; round < 10; ++round) {
      const __m512i keys0 = _mm512_set1_epi64(key0), keys1 = _mm512_set1_epi64(key1);
      for (int u = 0; u < kUnrolled; ++u) {
        const __m512i product0 = _mm512_mul_epu32(c[0][u], multiplier0);
        const __m512i product1 = _mm512_mul_epu32(c[2][u], multiplier1);
        const __m512i high1 = _mm512_srli_epi64(product1, 32);
        const __m512i high0 = _mm512_srli_epi64(product0, 32);
        c[0][u] = _mm512_ternarylogic_epi64(high1, c[1][u], keys0, kXor3);
        c[2][u] = _mm512_ternarylogic_epi64(high0, c[3][u], keys1, kXor3);
        c[1][u] = product1;
        c[3][u] = product0;
      }
      key0 += kPhiloxWeyl0;
      key1 += kPhiloxWeyl1;
    }
    for (int j = 0; j < 4; ++j) {
      for (int u = 0; u < kUnrolled; ++u) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * stride + i + 8 * u),
                            _mm512_cvtepi64_epi32(c[j][u]));
      }
    }
  }
  blocks_scalar(s, first + static_cast<uint32_t>(i), n - i, stride, out + i);
}

#endif

using Blocks = void (*)(const PhiloxSequence&, uint32_t, int64_t, int64_t, uint32_t*);

Blocks of_path() {
#ifdef SMNM_X86
  if (vector_path() >= VectorPath::kAvx512) return blocks_avx512;
  if (vector_path() >= VectorPath::kAvx2) return blocks_avx2;
#endif
  return blocks_scalar;
}

}  // namespace

void philox_blocks(const PhiloxSequence& sequence, uint32_t first, int64_t n, int64_t stride,
                   uint32_t* out) {
  static const Blocks blocks = of_path();
  blocks(sequence, first, n, stride, out);
}

}  // namespace smnm
