// What the sources of all vector paths share. Generic vectors wider than the machine's are lowered to
// memory and single elements, so each path has its own number of lanes: see kernels.h.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define SMNM_X86
#include <immintrin.h>
#endif

#define SMNM_INLINE inline __attribute__((always_inline))

namespace smnm {

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
