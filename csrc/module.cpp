// The Python module: importing it registers the CPU ops. Its functions say what was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <vector>

#include "rbn.h"
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
  m.def(
      "rbn_path",
      [](int64_t height, int64_t width, int64_t n_candidates, const std::vector<int64_t>& windows,
         const std::vector<int64_t>& weights) {
        return smnm::rbn_path(height, width, n_candidates, {windows, weights, false});
      },
      "how banks of checked arguments are run, for benchmarks");
}
