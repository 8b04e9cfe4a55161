#include "kernels.h"

#include "simd.h"
#include "vector_path.h"

namespace smnm {

const Kernels& kernels() {
#ifdef SMNM_X86
  switch (vector_path()) {
    case VectorPath::kAvx2:
      return kAvx2Kernels;
#ifdef SMNM_X86_AVX_VNNI
    case VectorPath::kAvxVnni:
      return kAvxVnniKernels;
#endif
    case VectorPath::kAvx512:
      return kAvx512Kernels;
    case VectorPath::kAvx512Vnni:
      return kAvx512VnniKernels;
    default:
      break;
  }
#endif
  return kBaselineKernels;
}

}  // namespace smnm
