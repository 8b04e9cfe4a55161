// What a launch of the R-BN kernels needs that only the headers of csrc know, for Python.
#include <cstdint>
#include <cstring>
#include <typeinfo>

#include "rbn_rounds_state.h"

namespace {

// Stands for a kernel: its mangled name ends with the arguments of the template as the kernel's
// does.
template <bool kShared>
struct Kernel {};

void write_arguments(const char* mangled, char* out) {
  std::strcpy(out, std::strchr(std::strstr(mangled, "Kernel"), 'I'));
}

}  // namespace

extern "C" {

size_t shape_bytes() { return sizeof(smnm::RoundsShape); }

// Writes the shape to `out` (shape_bytes() of them) and returns the bytes of a block's state.
size_t rounds_shape(int64_t height, int64_t width, int64_t n_candidates, int64_t n_keep,
                    const int64_t* windows, int64_t n_windows, const int64_t* weights,
                    bool random_ties, void* out) {
  const smnm::RbnLines lines = smnm::rbn_lines(height, width, windows, n_windows, weights);
  const smnm::RoundsShape shape = smnm::rounds_shape(
      lines, height * width, width, n_candidates, n_keep, windows, n_windows, random_ties);
  std::memcpy(out, &shape, sizeof shape);
  return smnm::rounds_bytes(shape);
}

// Of the kernels that rbn_cuda.cu launches for a shape: the arguments of their templates, mangled,
// into 64 bytes each.
void kernel_arguments(const void*, bool in_shared, char* masks, char* bank) {
  const std::type_info& type = in_shared ? typeid(Kernel<true>) : typeid(Kernel<false>);
  write_arguments(type.name(), masks);
  write_arguments(type.name(), bank);
}
}
