// For machines with AVX2.
#include "kernels_includes.h"

#ifdef SMNM_X86

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,fma")
#endif

#define SMNM_LANES 8
#define SMNM_PAIRS
#define SMNM_AVX2
#include "kernels_of_path.h"

const smnm::Kernels smnm::kAvx2Kernels = SMNM_KERNELS;

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
