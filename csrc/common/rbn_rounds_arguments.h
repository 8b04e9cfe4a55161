// Arguments and results of the R-BN ops on GPUs, which work in rounds (rbn_rounds.h).
#pragma once

#include <cstdint>
#include <vector>

#include "op_arguments.h"
#include "rbn_arguments.h"
#include "rbn_rounds_state.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

// The shape of a call, from checked arguments. Its limits are above what fits in a GPU's memory.
inline RoundsShape parse_rounds(const std::vector<int64_t>& grid, int64_t n_keep,
                                int64_t n_candidates, const std::vector<int64_t>& windows,
                                const std::vector<int64_t>& weights, bool random_ties) {
  check_rbn(grid, n_keep, n_candidates, windows, weights);
  const auto n_windows = static_cast<int64_t>(windows.size());
  SMNM_CHECK(n_windows <= kMaxRoundsWindows, "a GPU takes at most ", kMaxRoundsWindows,
             " windows, got ", n_windows);
  const RbnLines lines = rbn_lines(grid[1], grid[2], windows.data(), n_windows, weights.data());
  SMNM_CHECK(rounds_take(lines, n_candidates),
             "a bank on a GPU must keep fewer than 2^31 scores: grid and the windows' border "
             "times n_candidates");
  return rounds_shape(lines, grid[1] * grid[2], grid[2], n_candidates, n_keep, windows.data(),
                      n_windows, random_ties);
}

inline MaskRows mask_rows(const Tensor& ids, const MaskTensors& out, const bool* valid) {
  return {int64_data(ids),
          ids.numel(),
          static_cast<bool*>(out.visible.data_ptr()),
          static_cast<int64_t*>(out.ids_keep.data_ptr()),
          static_cast<int64_t*>(out.ids_restore.data_ptr()),
          valid};
}

}  // namespace
}  // namespace smnm
