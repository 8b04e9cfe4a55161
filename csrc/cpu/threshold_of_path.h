// Which tokens are visible, and their indices.

namespace smnm {
namespace {

template <class Key>
SMNM_INLINE int64_t count_at_least(const Key* keys, int64_t n, Key bound) {
  int64_t count = 0;
  // Counted in blocks, so that a counter as narrow as a key cannot overflow.
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
void keep_largest(const Key* keys, int64_t n, int64_t n_keep, bool* visible) {
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
  // If more than n_keep keys reach the bound, the last of those equal to it are not visible.
  for (int64_t i = n - 1, extra = at_least_low - n_keep; extra > 0; --i) {
    if (keys[i] == low) {
      visible[i] = false;
      --extra;
    }
  }
}

constexpr int kLongs = SMNM_LANES / 2;
typedef int64_t LongLanes __attribute__((vector_size(8 * kLongs)));
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte j of a word is token j");

// One frame of write_masks, whose first token is number `first` and has `before` visible tokens
// before it. Eight tokens at a time; no branch on what is visible, which nothing predicts.
SMNM_INLINE void write_frame(const bool* frame, int64_t n, int64_t first, int64_t before,
                             int64_t n_all_keep, int64_t* ids_keep, int64_t* ids_restore) {
  static constexpr int64_t kToken[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  int64_t* next_kept = ids_keep + before;
  for (int64_t start = 0; start < n; start += 64) {
    uint64_t bits = 0;  // visible tokens of the 64 from start
    const int64_t end = std::min(n, start + 64);
    int64_t i = start;
    for (; i + 8 <= end; i += 8) {
      uint64_t shown;
      std::memcpy(&shown, frame + i, 8);
      // Byte j of the product is the sum of bytes 0 to j.
      const uint64_t up_to = shown * 0x0101010101010101;
      for (int j = 0; j < 8; j += kLongs) {
        const auto token = load<LongLanes>(kToken + j);
        const LongLanes up_to_here =
            ((LongLanes{} + static_cast<int64_t>(up_to - shown)) >> (8 * token)) & 255;
        const LongLanes choose =
            -(((LongLanes{} + static_cast<int64_t>(shown)) >> (8 * token)) & 255);
        const LongLanes if_visible = up_to_here + before;
        const LongLanes if_masked = token + (n_all_keep + first + i) - if_visible;
        store(ids_restore + i + j, (if_visible & choose) | (if_masked & ~choose));
      }
      before += static_cast<int64_t>(up_to >> 56);
      // The product's uppermost byte has bit j from byte j.
      bits |= (shown * 0x0102040810204080 >> 56) << (i - start);
    }
    for (; i < end; ++i) {
      ids_restore[i] = frame[i] ? before : n_all_keep + first + i - before;
      before += frame[i];
      bits |= uint64_t{frame[i]} << (i - start);
    }
    for (; bits != 0; bits &= bits - 1) *next_kept++ = first + start + __builtin_ctzll(bits);
  }
}

void write_masks(const bool* frame, int64_t n, int64_t n_keep, int64_t frames, bool* visible,
                 int64_t* ids_keep, int64_t* ids_restore) {
  for (int64_t f = 0; f < frames; ++f) {
    write_frame(frame, n, f * n, f * n_keep, frames * n_keep, ids_keep, ids_restore + f * n);
  }
  for (int64_t f = 0; f < frames; ++f) {
    if (visible + f * n != frame) std::memcpy(visible + f * n, frame, n);
  }
}

}  // namespace
}  // namespace smnm
