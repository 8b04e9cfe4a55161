// For machines with AVX-VNNI: those of AVX2, with the addition in the multiplying instruction.
#include "kernels_includes.h"

#ifdef SMNM_X86_AVX_VNNI

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avxvnni,avx2,bmi,bmi2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avxvnni,avx2,bmi,bmi2,fma")
#endif

#define SMNM_LANES 8
#define SMNM_PAIRS
#define SMNM_AVX2
#define SMNM_AVX_VNNI
#include "kernels_of_path.h"

const smnm::Kernels smnm::kAvxVnniKernels = SMNM_KERNELS;

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
