// Arguments and results of the ops of every device, on LibTorch's stable ABI: one build serves
// torch 2.10 and later. Python checks the arguments and raises errors of the right type. The checks
// here only keep a direct call of an op from reading or writing other memory.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "check.h"
#include "constants.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// torch::stable::contiguous(), without its call of an op where there is nothing to do.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A contiguous tensor [rows, columns] of a type of aoti_torch_dtype_*() on the device of `like`,
// not filled. torch::stable::new_empty calls an op, which takes four times as long.
inline Tensor new_matrix(const Tensor& like, int64_t rows, int64_t columns, int32_t type) {
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle made;
  const AOTITorchError error = aoti_torch_empty_strided(2, sizes, strides, type, device_type,
                                                        like.get_device_index(), &made);
  SMNM_CHECK(error == AOTI_TORCH_SUCCESS, "masks of ", rows, " samples with ", columns,
             " indices each do not fit in memory");
  return Tensor(made);
}

struct MaskTensors {
  Tensor visible, ids_keep, ids_restore;

  MaskTensors(const Tensor& like, int64_t batch, int64_t n_tokens, int64_t n_keep)
      : visible(new_matrix(like, batch, n_tokens, aoti_torch_dtype_bool())),
        ids_keep(new_matrix(like, batch, n_keep, aoti_torch_dtype_int64())),
        ids_restore(new_matrix(like, batch, n_tokens, aoti_torch_dtype_int64())) {}

  std::tuple<Tensor, Tensor, Tensor> tuple() const { return {visible, ids_keep, ids_restore}; }
};

inline const int64_t* int64_data(const Tensor& contiguous) {
  return static_cast<const int64_t*>(contiguous.data_ptr());
}

inline void check_seed(const std::optional<Tensor>& seed_tensor) {
  SMNM_CHECK(
      !seed_tensor || (seed_tensor->scalar_type() == ScalarType::Long && seed_tensor->numel() == 1),
      "seed_tensor must be int64 of one element");
}

// The seed of a call on CPU tensors.
inline int64_t seed_value(const std::optional<Tensor>& seed_tensor, int64_t seed) {
  check_seed(seed_tensor);
  return seed_tensor ? *int64_data(*seed_tensor) : seed;
}

inline void check_grid(const std::vector<int64_t>& grid) {
  SMNM_CHECK(grid.size() == 3 && grid[0] > 0 && grid[1] > 0 && grid[2] > 0,
             "grid must be three positive ints");
  SMNM_CHECK(grid[0] <= kMaxTokens && grid[1] <= kMaxTokens / grid[0] &&
                 grid[2] <= kMaxTokens / grid[0] / grid[1],
             "grid must have at most ", kMaxTokens, " tokens");
}

inline Tensor parse_sample_ids(const Tensor& sample_ids) {
  SMNM_CHECK(sample_ids.scalar_type() == ScalarType::Long && sample_ids.dim() == 1,
             "sample_ids must be int64 [B]");
  return as_contiguous(sample_ids);
}

// Which tokens may be visible, bool [B, N], or nullptr where all may; `held` keeps its memory
// alive.
inline const bool* parse_valid(const std::optional<Tensor>& valid, int64_t batch, int64_t n_tokens,
                               Tensor& held) {
  if (!valid) return nullptr;
  SMNM_CHECK(valid->scalar_type() == ScalarType::Bool && valid->dim() == 2 &&
                 valid->size(0) == batch && valid->size(1) == n_tokens,
             "valid must be bool [B, N]");
  held = as_contiguous(*valid);
  return static_cast<const bool*>(held.data_ptr());
}

// Of CPU tensors.
inline void check_enough_valid(const bool* valid, int64_t batch, int64_t n_tokens, int64_t n_keep) {
  if (valid == nullptr) return;
  for (int64_t row = 0; row < batch; ++row) {
    int64_t count = 0;
    for (int64_t i = 0; i < n_tokens; ++i) count += valid[row * n_tokens + i];
    SMNM_CHECK(count >= n_keep, "valid must be True for at least ", n_keep,
               " tokens of every row, got ", count, " in row ", row);
  }
}

inline void check_n_keep(int64_t n_keep, int64_t n_tokens, int64_t frames = 1) {
  SMNM_CHECK(frames >= 1 && n_keep % frames == 0, "n_keep must be a multiple of frames >= 1");
  SMNM_CHECK(n_keep >= 1 && n_keep <= n_tokens, "n_keep must be in [1, ", n_tokens, "]");
}

}  // namespace
}  // namespace smnm
