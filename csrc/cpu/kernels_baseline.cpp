// For every machine: SSE2 on x86-64, NEON on ARM.
#include "kernels_includes.h"

#define SMNM_LANES 4
#ifdef SMNM_X86
#define SMNM_PAIRS
#endif
#include "kernels_of_path.h"

const smnm::Kernels smnm::kBaselineKernels = SMNM_KERNELS;
