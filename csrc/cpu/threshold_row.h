// Which tokens are visible, and their indices.
#pragma once

#include <cstdint>

namespace smnm {

// visible[i] says whether keys[i] is among the n_keep largest; of equal keys, lower indices come
// first.
void threshold_row(const int32_t* keys, int64_t n, int64_t n_keep, bool* visible);
void threshold_row(const int64_t* keys, int64_t n, int64_t n_keep, bool* visible);

// Repeats a frame's mask of n tokens, n_keep of them visible, over `frames`, and writes the indices
// of the visible tokens and the inverse of the order [visible ascending, masked ascending]. `frame`
// may be the first n values of `visible`.
void write_masks(const bool* frame, int64_t n, int64_t n_keep, int64_t frames, bool* visible,
                 int64_t* ids_keep, int64_t* ids_restore);

}  // namespace smnm
