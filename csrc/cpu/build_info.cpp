// Descriptions of this library, as C functions for ctypes. The library does not use Python's C API,
// so one build serves every version of Python.
#include <torch/headeronly/version.h>

#include <cstdint>
#include <string>

#include "rbn_scores.h"
#include "vector_path.h"

#define SMNM_TEXT_OF(x) #x
#define SMNM_TEXT(x) SMNM_TEXT_OF(x)

extern "C" {

// JSON: the compiler, the C++ standard, torch's version and the target of its stable ABI, the
// vector path that runs, and all that this machine has.
const char* smnm_build_info() {
  static const std::string json = [] {
    std::string paths;
    for (const smnm::VectorPath path : smnm::vector_paths()) {
      paths += (paths.empty() ? "\"" : ", \"") + std::string(smnm::name_of(path)) + "\"";
    }
    return "{\"compiler\": \"" __VERSION__ "\", \"cxx_standard\": " + std::to_string(__cplusplus) +
           ", \"torch\": \"" TORCH_VERSION
           "\", \"torch_abi\": \"" SMNM_TEXT(TORCH_TARGET_VERSION) "\", \"vectors\": \"" +
           smnm::name_of(smnm::vector_path()) + "\", \"vector_paths\": [" + paths + "]}";
  }();
  return json.c_str();
}

// How banks of checked arguments are run, for benchmarks. Four weights.
const char* smnm_rbn_path(int64_t height, int64_t width, int64_t n_candidates,
                          const int64_t* windows, int64_t n_windows, const int64_t* weights) {
  const smnm::RbnRule rule = {{windows, windows + n_windows}, {weights, weights + 4}, false};
  return smnm::make_rbn_scores(smnm::rbn_lines(height, width, rule), n_candidates, 1, rule)
      ->describe();
}
}
