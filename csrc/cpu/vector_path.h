// Which vector instructions the CPU kernels use.
#pragma once

namespace smnm {

// A machine that has one of these has those before it, too. On ARM the baseline is NEON.
enum class VectorPath { kBaseline, kAvx2, kAvx512, kAvx512Vnni };

// As the environment variable SMNM_VECTORS and build_info() name it.
const char* name_of(VectorPath path);

// The widest that this machine has, or, where SMNM_VECTORS names one that it has, that one. Found
// once. libraries.py refuses other values of SMNM_VECTORS.
VectorPath vector_path();

}  // namespace smnm
