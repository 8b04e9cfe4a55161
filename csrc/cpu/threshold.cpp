// torch.ops.smnm.threshold for CPU tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"

namespace smnm {
namespace {

// An integer that compares as torch.sort orders the value: -0 equals 0, NaN is above everything.
template <class Float, class Bits>
Bits sort_key(Float value) {
  if (value != value) return std::numeric_limits<Bits>::max();
  if (value == 0) return 0;
  Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits < 0 ? static_cast<Bits>(std::numeric_limits<Bits>::min() - bits) : bits;
}

template <class Float, class Bits>
void threshold_rows(const Tensor& noise, const MaskTensors& out) {
  const auto* values = static_cast<const Float*>(noise.data_ptr());
  const int64_t n = noise.size(1), n_keep = out.ids_keep.size(1);
  for_each_row(noise.size(0), n, [&]() -> RowBody {
    return [&, keys = std::vector<Bits>(n)](int64_t row) mutable {
      for (int64_t i = 0; i < n; ++i) keys[i] = sort_key<Float, Bits>(values[row * n + i]);
      bool* visible = visible_row(out, row);
      if constexpr (sizeof(Bits) == sizeof(int32_t)) {
        kernels().threshold_ints(keys.data(), n, n_keep, visible);
      } else {
        kernels().threshold_longs(keys.data(), n, n_keep, visible);
      }
      write_row(out, row, visible);
    };
  });
}

// `noise` is float32 or float64 [B, N].
std::tuple<Tensor, Tensor, Tensor> threshold(const Tensor& noise, int64_t n_keep) {
  const Tensor values = as_contiguous(noise);
  SMNM_CHECK(values.dim() == 2 && (values.scalar_type() == ScalarType::Double ||
                                   values.scalar_type() == ScalarType::Float),
             "noise must be float32 or float64 [B, N]");
  check_n_keep(n_keep, values.size(1));
  const MaskTensors out(values, values.size(0), values.size(1), n_keep);
  if (values.scalar_type() == ScalarType::Double) {
    threshold_rows<double, int64_t>(values, out);
  } else {
    threshold_rows<float, int32_t>(values, out);
  }
  return out.tuple();
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) { m.impl("threshold", TORCH_BOX(&smnm::threshold)); }
