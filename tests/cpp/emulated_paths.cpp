// The kernels of one path, on machines without its instructions: their lanes emulated. It stands in
// for vector_path.cpp, kernels.cpp, philox_blocks.cpp and the files of the paths. The compiler is
// given what the file of the path defines, and the path: PATH in VectorPath, PATH_NAME as text.
#include "emulated_instructions.h"
// Everything else is read before the code that it is given to.
#include <cstdlib>

#include "../../csrc/cpu/kernels_includes.h"
#include "../../csrc/cpu/vector_path.h"
//
#include "../../csrc/cpu/kernels_of_path.h"
#include "../../csrc/cpu/philox_blocks.cpp"

namespace smnm {

VectorPath vector_path() { return VectorPath::PATH; }
const char* name_of(VectorPath) { return PATH_NAME; }

const Kernels& kernels() {
  static const Kernels emulated = SMNM_KERNELS;
  return emulated;
}

}  // namespace smnm
