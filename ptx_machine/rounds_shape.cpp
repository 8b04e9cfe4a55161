// What a launch of the R-BN kernels needs that only the headers of csrc/common know, for Python.
#include <cstdint>
#include <cstring>
#include <typeinfo>

#include "rbn_choice.h"

namespace {

// Stand for kernels: their mangled names end with the arguments of the template as the kernels' do.
template <bool kShared, class Pair, int kFew, bool kRandomTies>
struct MasksKernel {};
template <bool kShared, class Pair>
struct BankKernel {};

template <bool kShared, class Pair, int kFew, bool kRandomTies>
const char* masks_kernel(smnm::RoundsVariant<kFew, kRandomTies>) {
  return typeid(MasksKernel<kShared, Pair, kFew, kRandomTies>).name();
}

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
  const smnm::RoundsShape shape = smnm::rounds_shape(lines, height * width, width, n_candidates,
                                                     n_keep, windows, n_windows, random_ties);
  std::memcpy(out, &shape, sizeof shape);
  return static_cast<size_t>(shape.bytes);
}

// Of the kernels that rbn.cu launches for a shape: the arguments of their templates, mangled,
// into 64 bytes each.
void kernel_arguments(const void* bytes, bool in_shared, char* masks, char* bank) {
  smnm::RoundsShape shape;
  std::memcpy(&shape, bytes, sizeof shape);
  const smnm::AnyVariant any;
  if (shape.wide_pairs) {
    write_arguments(
        in_shared ? masks_kernel<true, int64_t>(any) : masks_kernel<false, int64_t>(any), masks);
  } else if (in_shared) {
    smnm::with_variant(
        shape, [&](auto variant) { write_arguments(masks_kernel<true, int32_t>(variant), masks); });
  } else {
    write_arguments(masks_kernel<false, int32_t>(any), masks);
  }
  smnm::with_pairs(shape, [&](auto pair) {
    using Pair = decltype(pair);
    const std::type_info& type =
        in_shared ? typeid(BankKernel<true, Pair>) : typeid(BankKernel<false, Pair>);
    write_arguments(type.name(), bank);
  });
}
}
