// The Python module: importing it registers the CPU ops; build_info() says what it was built with.
#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include "simd.h"

#define SMNM_TEXT_OF(x) #x
#define SMNM_TEXT(x) SMNM_TEXT_OF(x)

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["compiler"] = __VERSION__;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["torch"] = TORCH_VERSION;
  info["torch_abi"] = SMNM_TEXT(TORCH_TARGET_VERSION);
  info["vector_paths"] = SMNM_VECTOR_PATHS;
  return info;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of smnm_kernels";
  m.def("build_info", &build_info,
        "dict: compiler, C++ standard, torch version and stable-ABI target of this build");
}
