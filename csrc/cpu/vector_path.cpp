#include "vector_path.h"

#include <cstdlib>
#include <cstring>

#include "simd.h"

namespace smnm {
namespace {

VectorPath widest() {
#ifdef SMNM_X86
  const auto all = [](auto... found) { return (... && found); };
  if (!all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("bmi"),
           __builtin_cpu_supports("bmi2"), __builtin_cpu_supports("fma"))) {
    return VectorPath::kBaseline;
  }
  if (!all(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
           __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"))) {
    return VectorPath::kAvx2;
  }
  return __builtin_cpu_supports("avx512vnni") ? VectorPath::kAvx512Vnni : VectorPath::kAvx512;
#else
  return VectorPath::kBaseline;
#endif
}

VectorPath chosen() {
  const VectorPath most = widest();
  const char* asked = std::getenv("SMNM_VECTORS");
  if (asked == nullptr) return most;
  for (int path = 0; path <= static_cast<int>(most); ++path) {
    if (std::strcmp(asked, name_of(static_cast<VectorPath>(path))) == 0) {
      return static_cast<VectorPath>(path);
    }
  }
  return most;
}

}  // namespace

const char* name_of(VectorPath path) {
  switch (path) {
    case VectorPath::kAvx2:
      return "avx2";
    case VectorPath::kAvx512:
      return "avx512";
    case VectorPath::kAvx512Vnni:
      return "avx512_vnni";
    default:
      return "baseline";
  }
}

VectorPath vector_path() {
  static const VectorPath path = chosen();
  return path;
}

}  // namespace smnm
