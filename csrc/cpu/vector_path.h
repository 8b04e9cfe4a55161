// Which vector instructions the CPU kernels use.
#pragma once

#include <vector>

namespace smnm {

// From narrow to wide. A machine that has one of these has kBaseline and, if it is another, kAvx2,
// too. On ARM the baseline is NEON.
enum class VectorPath { kBaseline, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni };

// As the environment variable SMNM_VECTORS and build_info() name it.
const char* name_of(VectorPath path);

// Those that this machine has.
std::vector<VectorPath> vector_paths();

// The widest that this machine has, or, where SMNM_VECTORS names one that it has, that one. Found
// once. libraries.py refuses other values of SMNM_VECTORS.
VectorPath vector_path();

}  // namespace smnm
