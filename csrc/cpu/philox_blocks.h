// Many Philox blocks at once, on the CPU's widest vectors.
#pragma once

#include <cstdint>

#include "../common/philox.h"

namespace smnm {

// The words of `n` consecutive blocks: out[word * stride + i] is word `word` of block first + i.
void philox_blocks(const PhiloxSequence& sequence, uint32_t first, int64_t n, int64_t stride,
                   uint32_t* out);

}  // namespace smnm
