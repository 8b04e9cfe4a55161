// A bank of few masks with small windows, as most are. Each mask has scores of its own, so that the
// scores that rise with a patch lie side by side, row by row: a vector holds those of a row. The
// scores of a position are gathered from the masks.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "rbn_scores.h"

namespace smnm {

// Scores of 16 bits in a vector of 128, which every machine has.
constexpr int64_t kFewLanes = 8;

struct FewMasks {
  int64_t n_masks;  // at most kFewLanes
  int64_t unfilled;
  int64_t room[kFewLanes];   // visible patches still to come, of each mask
  uint16_t full[kFewLanes];  // kTakenShort for each mask that is full, and where there is no mask
  int64_t pitch;             // cells from a mask's row to the next
  int64_t plane;             // and from a mask to the next
  uint16_t* scores;          // plus kTakenShort where the mask shows the cell
  int64_t n_rows;            // whose scores rise with a patch
  const uint16_t* rises;     // [n_rows, kFewLanes], kTakenShort for the patch itself
  int64_t first_rise;        // from a patch to the first of these, in cells; not positive
};

}  // namespace smnm
