// One source for every machine: on x86-64, functions marked SMNM_CLONES are compiled for AVX-512,
// AVX2 and the baseline, and the loader picks. All arithmetic is exact, so the clones agree bit for
// bit.
#pragma once

#include <cstdint>
#include <cstring>

// The widest instructions that code written for x86-64 may use, if the machine has them: 0 none,
// 1 AVX2, 2 AVX-512, 3 AVX-512 VNNI. Tests build narrower ones, and then without clones.
#ifndef SMNM_VECTORS
#define SMNM_VECTORS 3
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define SMNM_X86
#endif

// GCC knows these names from version 12 on. In clang, every clone passes wide vectors by an ABI of
// its own, so it gets no clones.
#if SMNM_VECTORS == 3 && defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && \
    __GNUC__ >= 12
#define SMNM_VECTOR_PATHS "x86-64-v4, x86-64-v3, baseline"
#define SMNM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SMNM_VECTOR_PATHS "baseline"
#define SMNM_CLONES
#endif
#define SMNM_INLINE inline __attribute__((always_inline))

namespace smnm {

constexpr int kLanes = 16;
typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(int32_t))));

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <class Lanes, class T>
SMNM_INLINE Lanes load(const T* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}

template <class Lanes, class T>
SMNM_INLINE void store(T* to, const Lanes& lanes) {
  std::memcpy(to, &lanes, sizeof(Lanes));
}

}  // namespace smnm
