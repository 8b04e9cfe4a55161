// torch.ops.smnm.dispersion for CPU tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <string>
#include <vector>

#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"

namespace smnm {
namespace {

// float32 [B, N] from `data` float32 [B, C, T, H, W].
Tensor dispersion(const Tensor& data, const std::vector<int64_t>& patch, std::string metric) {
  const Tensor values = as_contiguous(data);
  SMNM_CHECK(values.dim() == 5 && values.scalar_type() == ScalarType::Float,
             "data must be float32 [B, C, T, H, W]");
  SMNM_CHECK(patch.size() == 3, "patch must be three ints");
  const int64_t sides[3] = {values.size(2), values.size(3), values.size(4)};
  int64_t grid[3];
  for (int i = 0; i < 3; ++i) {
    SMNM_CHECK(patch[i] > 0 && sides[i] > 0 && sides[i] % patch[i] == 0,
               "patch must divide the sides of data");
    grid[i] = sides[i] / patch[i];
  }
  PatchShape shape{values.size(1),
                   patch[0],
                   patch[1],
                   patch[2],
                   {sides[0] * sides[1] * sides[2], sides[1] * sides[2], sides[2]},
                   metric == "variance"};
  SMNM_CHECK(shape.size() >= 1 && shape.size() <= kMaxPatch, "patch must have at most ", kMaxPatch,
             " values");
  const int64_t n = grid[0] * grid[1] * grid[2], in_sample = shape.channels * shape.strides[0];
  const Tensor out = new_matrix(values, values.size(0), n, aoti_torch_dtype_float32());
  const auto* from = static_cast<const float*>(values.data_ptr());
  auto* to = static_cast<float*>(out.data_ptr());
  // A row of patches at a time, so that a small batch occupies all threads.
  for_each_row(
      values.size(0) * grid[0] * grid[1], in_sample / (grid[0] * grid[1]), [&]() -> RowBody {
        return [&, scratch = std::vector<int32_t>(shape.size())](int64_t row) mutable {
          const int64_t y = row % grid[1], t = row / grid[1] % grid[0];
          const float* first = from + row / (grid[0] * grid[1]) * in_sample +
                               t * patch[0] * shape.strides[1] + y * patch[1] * shape.strides[2];
          for (int64_t x = 0; x < grid[2]; ++x) {
            to[row * grid[2] + x] =
                kernels().dispersion(shape, first + x * patch[2], scratch.data());
          }
        };
      });
  return out;
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) { m.impl("dispersion", TORCH_BOX(&smnm::dispersion)); }
