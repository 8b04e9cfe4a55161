// Taps, and the rows that they filter: what both ways to filter a field share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/constants.h"

namespace smnm {
namespace {

// One of the Gaussians whose difference makes a field.
struct Chain {
  const int16_t* taps;  // circular, along t, h and w of the torus
  int gain;             // of its last pass, where kTapUnit is 1
};

// Nonzero taps around the centre: weight[k] multiplies the input at distance k - before.
struct Taps {
  std::vector<int16_t> weight;
  int64_t before = 0;
  int64_t count() const { return static_cast<int64_t>(weight.size()); }
};

Taps nonzero_taps(const int16_t* circular, int64_t side, int gain) {
  const auto tap = [&](int64_t distance) {  // above -side
    const int16_t weight = circular[distance < 0 ? distance + side : distance];
    return (weight * gain + kTapUnit / 2) >> kTapShift;
  };
  int64_t reach = 0;
  for (int64_t d = 1; d <= side / 2; ++d) {
    if (tap(d) != 0) reach = d;
  }
  Taps taps;
  taps.before = std::min(reach, (side - 1) / 2);
  taps.weight.reserve(taps.before + reach + 1);
  for (int64_t d = -taps.before; d <= reach; ++d) {
    taps.weight.push_back(static_cast<int16_t>(tap(d)));
  }
  return taps;
}

// Taps k and k + 1 in one number, the first in the lower half; zero where there is none.
inline int32_t tap_pair(const Taps& taps, int64_t k) {
  const auto tap = [&](int64_t i) {
    return i >= 0 && i < taps.count() ? static_cast<int32_t>(taps.weight[i]) : 0;
  };
  return static_cast<int32_t>(static_cast<uint32_t>(tap(k + 1)) << 16 | (tap(k) & 0xFFFF));
}

// This many values behind the last of a torus must be readable. They may hold anything.
constexpr int64_t kRowSlack = 32;

// Rows that are copied together: so many that the first have left the store queue when they are
// read. A read spans several stores, and would wait for all of them to leave it.
constexpr int64_t kWideRows = 16;

// A wide row holds copies of a circular row. Output 0 is at the first value of the second copy,
// because the taps before it reach back by at most half a row. The last copy begins before
// 1.5 * side + n_out, and runs over by part of a vector.
int64_t wide_pitch(int64_t side, int64_t n_out) { return n_out + 3 * side + 2 * kRowSlack; }

// Inputs that the taps of n_out outputs read.
int64_t inputs_end(int64_t side, int64_t n_out, const Taps& outer) {
  return side + n_out + outer.count() - outer.before;
}

}  // namespace
}  // namespace smnm
