// The instructions of AVX-512 and AVX-VNNI that csrc/cpu uses, lane by lane, for machines that have
// none: included before those sources, it gives their intrinsics to these functions. What each does
// is taken from Intel's description of the instruction.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#define SMNM_TARGET(...)  // this machine's
#include "../../csrc/cpu/simd.h"
#undef _mm512_setr_epi64  // GCC has a macro of that name

namespace emulated {

struct Register {
  unsigned char bytes[64];
};

template <class T>
struct Lanes {
  static constexpr int kCount = 64 / sizeof(T);
  T lane[kCount];
};

template <class T>
Lanes<T> lanes(const Register& from) {
  Lanes<T> to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T, class Body>
Register each(const Body& body) {
  Lanes<T> made;
  for (int i = 0; i < Lanes<T>::kCount; ++i) made.lane[i] = static_cast<T>(body(i));
  Register to;
  std::memcpy(&to, &made, sizeof(to));
  return to;
}

inline Register loadu_si512(const void* from) {
  Register to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}
inline void storeu_si512(void* to, const Register& from) { std::memcpy(to, &from, sizeof(from)); }
inline void storeu_ps(float* to, const Register& from) { std::memcpy(to, &from, sizeof(from)); }
inline Register setzero_si512() {
  return each<int32_t>([](int) { return 0; });
}
inline Register set1_epi32(int32_t a) {
  return each<int32_t>([&](int) { return a; });
}
inline Register set1_epi64(int64_t a) {
  return each<int64_t>([&](int) { return a; });
}
inline Register setr_epi64(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                           int64_t g, int64_t h) {
  const int64_t all[8] = {a, b, c, d, e, f, g, h};
  return loadu_si512(all);
}

#define EMULATED_OF_TWO(NAME, T, RESULT)                                 \
  inline Register NAME(const Register& a, const Register& b) {           \
    const Lanes<T> x = lanes<T>(a), y = lanes<T>(b);                     \
    return each<T>([&](int i) { return RESULT(x.lane[i], y.lane[i]); }); \
  }
EMULATED_OF_TWO(add_epi32, uint32_t, [](auto x, auto y) { return x + y; })
EMULATED_OF_TWO(sub_epi32, uint32_t, [](auto x, auto y) { return x - y; })
EMULATED_OF_TWO(add_epi64, uint64_t, [](auto x, auto y) { return x + y; })
EMULATED_OF_TWO(min_epi32, int32_t, std::min)
EMULATED_OF_TWO(max_epi32, int32_t, std::max)
// The product of the lower halves.
EMULATED_OF_TWO(mul_epu32, uint64_t,
                [](auto x, auto y) { return (x & 0xFFFFFFFF) * (y & 0xFFFFFFFF); })
#undef EMULATED_OF_TWO

inline Register srai_epi32(const Register& a, int by) {
  return each<int32_t>([&](int i) { return lanes<int32_t>(a).lane[i] >> by; });
}
inline Register srli_epi64(const Register& a, int by) {
  return each<uint64_t>([&](int i) { return lanes<uint64_t>(a).lane[i] >> by; });
}
inline Register cvtepi32_ps(const Register& a) {
  return each<float>([&](int i) { return static_cast<float>(lanes<int32_t>(a).lane[i]); });
}
inline Register permutexvar_epi16(const Register& index, const Register& a) {
  const Lanes<uint16_t> at = lanes<uint16_t>(index), from = lanes<uint16_t>(a);
  return each<uint16_t>([&](int i) { return from.lane[at.lane[i] & 31]; });
}
inline __m256i dpwssd_avx_epi32(__m256i sum, __m256i a, __m256i b) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
// VNNI: two products of 16 bits, added to the sum.
inline Register dpwssd_epi32(const Register& sum, const Register& a, const Register& b) {
  const Lanes<int32_t> s = lanes<int32_t>(sum);
  const Lanes<int16_t> x = lanes<int16_t>(a), y = lanes<int16_t>(b);
  return each<int32_t>([&](int i) {
    return s.lane[i] + x.lane[2 * i] * y.lane[2 * i] + x.lane[2 * i + 1] * y.lane[2 * i + 1];
  });
}
// Bit 4a + 2b + c of the table, for each bit of the operands.
inline Register ternarylogic_epi64(const Register& a, const Register& b, const Register& c,
                                   int table) {
  const Lanes<uint64_t> x = lanes<uint64_t>(a), y = lanes<uint64_t>(b), z = lanes<uint64_t>(c);
  return each<uint64_t>([&](int i) {
    uint64_t made = 0;
    for (int row = 0; row < 8; ++row) {
      if ((table >> row & 1) == 0) continue;
      made |= (row & 4 ? x.lane[i] : ~x.lane[i]) & (row & 2 ? y.lane[i] : ~y.lane[i]) &
              (row & 1 ? z.lane[i] : ~z.lane[i]);
    }
    return made;
  });
}
inline __m256i cvtepi64_epi32(const Register& a) {
  int32_t lower[8];
  for (int i = 0; i < 8; ++i) lower[i] = static_cast<int32_t>(lanes<int64_t>(a).lane[i]);
  __m256i to;
  std::memcpy(&to, lower, sizeof(to));
  return to;
}

}  // namespace emulated

#define _mm256_dpwssd_avx_epi32 emulated::dpwssd_avx_epi32
#define __m512i emulated::Register
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_storeu_si512 emulated::storeu_si512
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_setzero_si512 emulated::setzero_si512
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_epi64 emulated::set1_epi64
#define _mm512_setr_epi64 emulated::setr_epi64
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_sub_epi32 emulated::sub_epi32
#define _mm512_add_epi64 emulated::add_epi64
#define _mm512_min_epi32 emulated::min_epi32
#define _mm512_max_epi32 emulated::max_epi32
#define _mm512_mul_epu32 emulated::mul_epu32
#define _mm512_srai_epi32 emulated::srai_epi32
#define _mm512_srli_epi64 emulated::srli_epi64
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_permutexvar_epi16 emulated::permutexvar_epi16
#define _mm512_dpwssd_epi32 emulated::dpwssd_epi32
#define _mm512_ternarylogic_epi64 emulated::ternarylogic_epi64
#define _mm512_cvtepi64_epi32 emulated::cvtepi64_epi32
