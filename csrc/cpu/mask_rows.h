// One row of a call's mask tensors.
#pragma once

#include "../common/op_arguments.h"
#include "kernels.h"

namespace smnm {
namespace {  // torch's types are hidden symbols, so what holds them must be local

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
