// The rows of a call's mask tensors.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <functional>

#include "../common/op_arguments.h"
#include "kernels.h"
#include "rows.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

inline void on_torch_threads(int64_t threads, const std::function<void(int64_t)>& work) {
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) work(thread);
  });
}

// run_rows() of rows.h, on as many threads as torch uses. A row makes masks of so many tokens.
inline void for_each_row(int64_t n, int64_t tokens, const std::function<RowBody()>& begin) {
  constexpr int64_t kHeavy = 1 << 15;
  run_rows(n, torch::stable::get_num_threads(), tokens >= kHeavy, on_torch_threads, begin);
}

inline bool* visible_row(const MaskTensors& out, int64_t row) {
  return static_cast<bool*>(out.visible.data_ptr()) + row * out.visible.size(1);
}

// `frame` holds the first of `frames` equal frames.
inline void write_row(const MaskTensors& out, int64_t row, const bool* frame, int64_t frames = 1) {
  const int64_t n = out.visible.size(1), n_keep = out.ids_keep.size(1);
  kernels().write_masks(frame, n / frames, n_keep / frames, frames, visible_row(out, row),
                        static_cast<int64_t*>(out.ids_keep.data_ptr()) + row * n_keep,
                        static_cast<int64_t*>(out.ids_restore.data_ptr()) + row * n);
}

}  // namespace
}  // namespace smnm
