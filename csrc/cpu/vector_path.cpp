#include "vector_path.h"

#include <cstdlib>
#include <cstring>

#include "simd.h"

#ifdef SMNM_X86_AVX_VNNI
#include <cpuid.h>
#endif

namespace smnm {
namespace {

#ifdef SMNM_X86_AVX_VNNI
// Not every compiler's __builtin_cpu_supports knows it.
bool has_avx_vnni() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
#endif

VectorPath chosen() {
  const std::vector<VectorPath> paths = vector_paths();
  const char* asked = std::getenv("SMNM_VECTORS");
  for (const VectorPath path : paths) {
    if (asked != nullptr && std::strcmp(asked, name_of(path)) == 0) return path;
  }
  return paths.back();
}

}  // namespace

const char* name_of(VectorPath path) {
  switch (path) {
    case VectorPath::kAvx2:
      return "avx2";
    case VectorPath::kAvxVnni:
      return "avx_vnni";
    case VectorPath::kAvx512:
      return "avx512";
    case VectorPath::kAvx512Vnni:
      return "avx512_vnni";
    default:
      return "baseline";
  }
}

std::vector<VectorPath> vector_paths() {
  std::vector<VectorPath> paths = {VectorPath::kBaseline};
#ifdef SMNM_X86
  const auto all = [](auto... found) { return (... && found); };
  if (!all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("bmi"),
           __builtin_cpu_supports("bmi2"), __builtin_cpu_supports("fma"))) {
    return paths;
  }
  paths.push_back(VectorPath::kAvx2);
#ifdef SMNM_X86_AVX_VNNI
  if (has_avx_vnni()) paths.push_back(VectorPath::kAvxVnni);
#endif
  if (!all(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
           __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"))) {
    return paths;
  }
  paths.push_back(VectorPath::kAvx512);
  if (__builtin_cpu_supports("avx512vnni")) paths.push_back(VectorPath::kAvx512Vnni);
#endif
  return paths;
}

VectorPath vector_path() {
  static const VectorPath path = chosen();
  return path;
}

}  // namespace smnm
