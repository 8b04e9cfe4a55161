// Checks of a direct call's arguments and the tensors of a result, for the ops of every device.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "rbn_rounds_state.h"
#include "rbn_scoring.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// MAX_TOKENS in arguments.py: token indices fit 32 bits.
constexpr int64_t kMaxTokens = 1 << 30;

struct MaskTensors {
  Tensor visible, ids_keep, ids_restore;

  MaskTensors(const Tensor& like, int64_t batch, int64_t n_tokens, int64_t n_keep)
      : visible(torch::stable::new_empty(like, {batch, n_tokens}, ScalarType::Bool)),
        ids_keep(torch::stable::new_empty(like, {batch, n_keep}, ScalarType::Long)),
        ids_restore(torch::stable::new_empty(like, {batch, n_tokens}, ScalarType::Long)) {}

  std::tuple<Tensor, Tensor, Tensor> tuple() const { return {visible, ids_keep, ids_restore}; }
};

inline const int64_t* int64_data(const Tensor& contiguous) {
  return static_cast<const int64_t*>(contiguous.data_ptr());
}

inline void check_seed(const std::optional<Tensor>& seed_tensor) {
  STD_TORCH_CHECK(
      !seed_tensor || (seed_tensor->scalar_type() == ScalarType::Long && seed_tensor->numel() == 1),
      "seed_tensor must be int64 of one element");
}

// On the CPU, where the tensor can be read.
inline int64_t seed_value(const std::optional<Tensor>& seed_tensor, int64_t seed) {
  check_seed(seed_tensor);
  return seed_tensor ? *int64_data(*seed_tensor) : seed;
}

inline void check_grid(const std::vector<int64_t>& grid) {
  STD_TORCH_CHECK(grid.size() == 3 && grid[0] > 0 && grid[1] > 0 && grid[2] > 0,
                  "grid must be three positive ints");
  STD_TORCH_CHECK(grid[0] <= kMaxTokens && grid[1] <= kMaxTokens / grid[0] &&
                      grid[2] <= kMaxTokens / grid[0] / grid[1],
                  "grid must have at most ", kMaxTokens, " tokens");
}

inline Tensor parse_sample_ids(const Tensor& sample_ids) {
  STD_TORCH_CHECK(sample_ids.scalar_type() == ScalarType::Long && sample_ids.dim() == 1,
                  "sample_ids must be int64 [B]");
  return torch::stable::contiguous(sample_ids);
}

inline Tensor parse_orders(const Tensor& order, int64_t n_tokens) {
  const Tensor orders = torch::stable::contiguous(order);
  STD_TORCH_CHECK(
      orders.scalar_type() == ScalarType::Long && orders.dim() == 2 && orders.size(1) == n_tokens,
      "order must be int64 [G, N]");
  return orders;
}

inline void check_n_keep(int64_t n_keep, int64_t n_tokens, int64_t frames = 1) {
  STD_TORCH_CHECK(frames >= 1 && n_keep % frames == 0, "n_keep must be a multiple of frames >= 1");
  STD_TORCH_CHECK(n_keep >= 1 && n_keep <= n_tokens, "n_keep must be in [1, ", n_tokens, "]");
}

inline void check_rbn(const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
                      const std::vector<int64_t>& windows, const std::vector<int64_t>& weights) {
  check_grid(grid);
  STD_TORCH_CHECK(grid[0] == 1, "grid must be (1, H, W)");
  check_n_keep(n_keep, grid[1] * grid[2]);
  STD_TORCH_CHECK(n_candidates >= 1 && n_candidates <= kMaxCandidates,
                  "n_candidates must be in [1, ", kMaxCandidates, "]");
  STD_TORCH_CHECK(!windows.empty() && weights.size() == 4, "windows and four weights are needed");
  // A score beyond the largest could pass for a mask that is full, and no sweep would fill it.
  int64_t reach = 0;
  for (const int64_t w : weights) {
    STD_TORCH_CHECK(w >= 0 && w <= kMaxScore, "weights must be in [0, ", kMaxScore, "]");
  }
  for (const int64_t window : windows) {
    STD_TORCH_CHECK(window >= 1 && window <= kMaxScore && window % 2 == 1,
                    "windows must be odd, in [1, ", kMaxScore, "]");
    reach += window - 1;
    STD_TORCH_CHECK(reach <= kMaxScore, "windows must be at most ", kMaxScore, " in all");
  }
  STD_TORCH_CHECK(rbn_max_score(windows, weights) <= kMaxScore, "scores must be at most ",
                  kMaxScore);
}

// The shape of an op that works in rounds, whose limits lie above what a GPU's memory holds.
inline RoundsShape parse_rounds(const std::vector<int64_t>& grid, int64_t n_keep,
                                int64_t n_candidates, const std::vector<int64_t>& windows,
                                const std::vector<int64_t>& weights, bool random_ties) {
  check_rbn(grid, n_keep, n_candidates, windows, weights);
  const auto n_windows = static_cast<int64_t>(windows.size());
  STD_TORCH_CHECK(n_windows <= kMaxRoundsWindows, "a GPU takes at most ", kMaxRoundsWindows,
                  " windows, got ", n_windows);
  const RbnLines lines = rbn_lines(grid[1], grid[2], windows.data(), n_windows, weights.data());
  STD_TORCH_CHECK(rounds_take(lines, n_candidates),
                  "a bank on a GPU must keep fewer than 2^31 scores: grid and the windows' border "
                  "times n_candidates");
  return rounds_shape(lines, grid[1] * grid[2], grid[2], n_candidates, n_keep, windows.data(),
                      n_windows, random_ties);
}

inline MaskRows mask_rows(const Tensor& ids, const MaskTensors& out) {
  return {int64_data(ids), ids.numel(), static_cast<bool*>(out.visible.data_ptr()),
          static_cast<int64_t*>(out.ids_keep.data_ptr()),
          static_cast<int64_t*>(out.ids_restore.data_ptr())};
}

}  // namespace
}  // namespace smnm
