// What the sources of all vector paths share. Generic vectors wider than the machine's are lowered
// to memory and single elements, so each path has its own number of lanes: see kernels.h.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define SMNM_X86
#include <immintrin.h>
// Older compilers do not know AVX-VNNI.
#if __clang_major__ >= 13 || (!defined(__clang__) && __GNUC__ >= 11)
#define SMNM_X86_AVX_VNNI
#endif
#endif

#ifndef SMNM_TARGET  // tests that emulate instructions compile for this machine
#define SMNM_TARGET(...) __attribute__((target(__VA_ARGS__)))
#endif
#define SMNM_INLINE inline __attribute__((always_inline))

namespace smnm {

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace smnm
