// The kernels for AVX-512, with and without VNNI, on machines without: their lanes emulated. It
// stands in for vector_path.cpp, kernels.cpp, philox_blocks.cpp and the files of the paths.
#include "emulated_avx512.h"
// Everything else is read before the code that it is given to.
#include <cstdlib>

#include "../../csrc/cpu/kernels_includes.h"
#include "../../csrc/cpu/vector_path.h"

#define SMNM_LANES 16
#ifdef EMULATE_VNNI
#define SMNM_AVX512_VNNI
#endif
#include "../../csrc/cpu/kernels_of_path.h"
#include "../../csrc/cpu/philox_blocks.cpp"

namespace smnm {

#ifdef EMULATE_VNNI
VectorPath vector_path() { return VectorPath::kAvx512Vnni; }
const char* name_of(VectorPath) { return "avx512_vnni"; }
#else
VectorPath vector_path() { return VectorPath::kAvx512; }
const char* name_of(VectorPath) { return "avx512"; }
#endif

const Kernels& kernels() {
  static const Kernels emulated = SMNM_KERNELS;
  return emulated;
}

}  // namespace smnm
