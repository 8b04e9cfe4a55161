// Arguments of the R-BN ops of every device.
#pragma once

#include <cstdint>
#include <vector>

#include "op_arguments.h"
#include "rbn_scoring.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

inline Tensor parse_orders(const Tensor& order, int64_t n_tokens) {
  const Tensor orders = torch::stable::contiguous(order);
  SMNM_CHECK(
      orders.scalar_type() == ScalarType::Long && orders.dim() == 2 && orders.size(1) == n_tokens,
      "order must be int64 [G, N]");
  return orders;
}

inline void check_rbn(const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
                      const std::vector<int64_t>& windows, const std::vector<int64_t>& weights) {
  check_grid(grid);
  SMNM_CHECK(grid[0] == 1, "grid must be (1, H, W)");
  check_n_keep(n_keep, grid[1] * grid[2]);
  SMNM_CHECK(n_candidates >= 1 && n_candidates <= kMaxCandidates, "n_candidates must be in [1, ",
             kMaxCandidates, "]");
  SMNM_CHECK(!windows.empty() && weights.size() == 4, "windows and four weights are needed");
  // A mask with a larger score would be taken for a full one, and sweeps would never end.
  int64_t reach = 0;
  for (const int64_t w : weights) {
    SMNM_CHECK(w >= 0 && w <= kMaxScore, "weights must be in [0, ", kMaxScore, "]");
  }
  for (const int64_t window : windows) {
    SMNM_CHECK(window >= 1 && window <= kMaxScore && window % 2 == 1,
               "windows must be odd, in [1, ", kMaxScore, "]");
    reach += window - 1;
    SMNM_CHECK(reach <= kMaxScore, "windows must be at most ", kMaxScore, " in all");
  }
  SMNM_CHECK(rbn_max_score(windows, weights) <= kMaxScore, "scores must be at most ", kMaxScore);
}

}  // namespace
}  // namespace smnm
