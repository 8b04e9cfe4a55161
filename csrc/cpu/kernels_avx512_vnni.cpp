// For machines with AVX-512 with VNNI.
#include "kernels_includes.h"

#ifdef SMNM_X86

#ifdef __clang__
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,fma")
#endif

#define SMNM_LANES 16
#define SMNM_AVX2
#define SMNM_AVX512_VNNI
#include "kernels_of_path.h"

const smnm::Kernels smnm::kAvx512VnniKernels = SMNM_KERNELS;

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
