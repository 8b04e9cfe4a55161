#include "select.h"

#include <algorithm>
#include <cstring>

#include "simd.h"

namespace smnm {
namespace {

template <class Key>
SMNM_INLINE int64_t count_at_least(const Key* keys, int64_t n, Key bound) {
  int64_t count = 0;
  // Blocks keep the counter as narrow as a key, so that it shares the keys' vectors.
  for (int64_t start = 0; start < n; start += 4096) {
    const int64_t end = std::min(n, start + 4096);
    Key in_block = 0;
    for (int64_t i = start; i < end; ++i) in_block += keys[i] >= bound;
    count += in_block;
  }
  return count;
}

// Halves the interval of values that holds the n_keep-th largest until one value is left: at most
// as many passes as a key has bits, and no data ever moves.
template <class Key>
SMNM_INLINE void select(const Key* keys, int64_t n, int64_t n_keep, bool* visible) {
  Key low = keys[0], high = keys[0];
  for (int64_t i = 1; i < n; ++i) {
    low = std::min(low, keys[i]);
    high = std::max(high, keys[i]);
  }
  int64_t at_least_low = n;
  while (low < high && at_least_low != n_keep) {
    // The middle, rounded up, without overflow.
    const Key middle = (low >> 1) + (high >> 1) + ((low | high) & 1);
    const int64_t count = count_at_least(keys, n, middle);
    if (count >= n_keep) {
      low = middle;
      at_least_low = count;
    } else {
      high = middle - 1;
    }
  }
  for (int64_t i = 0; i < n; ++i) visible[i] = keys[i] >= low;
  // Of the tokens equal to the bound, the last ones are too many.
  for (int64_t i = n - 1, extra = at_least_low - n_keep; extra > 0; --i) {
    if (keys[i] == low) {
      visible[i] = false;
      --extra;
    }
  }
}

}  // namespace

SMNM_CLONES
void select_largest(const int32_t* keys, int64_t n, int64_t n_keep, bool* visible) {
  select(keys, n, n_keep, visible);
}

SMNM_CLONES
void select_largest(const int64_t* keys, int64_t n, int64_t n_keep, bool* visible) {
  select(keys, n, n_keep, visible);
}

void write_masks(const bool* frame, int64_t n, int64_t n_keep, int64_t frames, bool* visible,
                 int64_t* ids_keep, int64_t* ids_restore) {
  const int64_t n_all_keep = frames * n_keep;
  for (int64_t f = 0; f < frames; ++f) {
    int64_t next_visible = f * n_keep;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t shown = frame[i];
      // No branch to mispredict: a masked token is written too, where the next visible one goes.
      int64_t nowhere;
      int64_t* slot = next_visible < n_all_keep ? ids_keep + next_visible : &nowhere;
      *slot = f * n + i;
      ids_restore[f * n + i] = shown ? next_visible : n_all_keep + f * n + i - next_visible;
      next_visible += shown;
    }
  }
  for (int64_t f = 0; f < frames; ++f) {
    if (visible + f * n != frame) std::memcpy(visible + f * n, frame, n);
  }
}

}  // namespace smnm
