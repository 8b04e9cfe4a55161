// Masks by draws without replacement, for CPU tensors, with the tables that
// smnm_kernels/dispatch.py passes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../common/draw_keys.h"
#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"
#include "row_words.h"

namespace smnm {
namespace {

struct Draw {
  Logarithms logarithms;
  int64_t n, seed, n_keep, n_swapped;
  bool invert;
  const bool* valid;  // [B, N], or nullptr

  // Of a row: which tokens may be visible, or nullptr where all may.
  const bool* valid_of(int64_t row) const { return valid == nullptr ? nullptr : valid + row * n; }
};

// Gives the tokens that must not be chosen the lowest key.
void leave_out(const bool* valid, int64_t n, int32_t lowest, int32_t* keys) {
  for (int64_t token = 0; token < n; ++token) keys[token] = valid[token] ? keys[token] : lowest;
}

// How many tokens of a row are swapped: of those that are drawn and valid, the same share.
int64_t n_swapped_of(const Draw& draw, const bool* valid) {
  if (valid == nullptr || draw.invert || draw.n_swapped == 0) return draw.n_swapped;
  const int64_t n_valid = std::count(valid, valid + draw.n, true);
  return draw.n_swapped * (n_valid - draw.n_keep) / (draw.n - draw.n_keep);
}

// The masks of one sample.
template <DrawRule rule>
void draw_row(const Draw& draw, int64_t sample_id, const float* values, const bool* valid,
              int32_t* keys, bool* visible) {
  const int32_t flip = draw.invert ? 0 : -1;  // the largest keys are those of the visible tokens
  for_each_word(draw.seed, kDraw, sample_id, draw.n, [&](int64_t token, uint32_t word) {
    keys[token] = flip ^ draw_key<rule>(draw.logarithms, values[token], word);
  });
  if (valid != nullptr) leave_out(valid, draw.n, INT32_MIN, keys);  // below all other keys
  kernels().threshold_ints(keys, draw.n, draw.n_keep, visible);
}

// Puts some of the drawn tokens back, and draws as many from all that are left.
void swap_row(const Draw& draw, int64_t sample_id, const bool* valid, int32_t* keys, bool* chosen,
              bool* visible) {
  const int64_t n_swapped = n_swapped_of(draw, valid);
  if (n_swapped == 0) return;
  const auto choose = [&](Purpose purpose, bool from_visible) {
    for_each_word(draw.seed, purpose, sample_id, draw.n, [&](int64_t token, uint32_t word) {
      keys[token] = visible[token] == from_visible ? static_cast<int32_t>(word >> 1) : -1;
    });
    if (valid != nullptr) leave_out(valid, draw.n, -1, keys);
    kernels().threshold_ints(keys, draw.n, n_swapped, chosen);
    for (int64_t token = 0; token < draw.n; ++token) visible[token] ^= chosen[token];
  };
  choose(kReveal, draw.invert);
  choose(kMaskAgain, !draw.invert);
}

template <DrawRule rule>
void draw_rows(const Draw& draw, const Tensor& ids, const float* values, const MaskTensors& out) {
  struct Scratch {
    std::vector<int32_t> keys;
    std::unique_ptr<bool[]> chosen;
  };
  for_each_row(ids.numel(), draw.n, [&]() -> RowBody {
    const auto own = std::make_shared<Scratch>();
    own->keys.resize(draw.n);
    if (draw.n_swapped > 0) own->chosen.reset(new bool[draw.n]);
    return [&, own](int64_t row) {
      const int64_t sample_id = int64_data(ids)[row];
      bool* visible = visible_row(out, row);
      const bool* valid = draw.valid_of(row);
      draw_row<rule>(draw, sample_id, values + row * draw.n, valid, own->keys.data(), visible);
      if (own->chosen) {
        swap_row(draw, sample_id, valid, own->keys.data(), own->chosen.get(), visible);
      }
      write_row(out, row, visible);
    };
  });
}

// `values` is float32 [B, N].
std::tuple<Tensor, Tensor, Tensor> draw_masks_from_table(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const Tensor& values, const Tensor& table, int64_t rule, int64_t n_keep, bool invert,
    int64_t n_swapped, const std::optional<Tensor>& valid) {
  const Tensor ids = parse_sample_ids(sample_ids), given = as_contiguous(values);
  SMNM_CHECK(given.dim() == 2 && given.scalar_type() == ScalarType::Float &&
                 given.size(0) == ids.numel() && given.size(1) <= kMaxTokens,
             "values must be float32 [B, N]");
  SMNM_CHECK(table.scalar_type() == ScalarType::Int && table.is_contiguous() &&
                 table.numel() == Logarithms::kSize,
             "table must be the packed logarithms");
  const int64_t n = given.size(1);
  check_n_keep(n_keep, n);
  SMNM_CHECK(n_swapped >= 0 && n_swapped <= (invert ? n_keep : n - n_keep),
             "n_swapped must be at most the number of tokens that are drawn");
  const MaskTensors out(ids, ids.numel(), n, n_keep);
  Tensor held = ids;
  const bool* may_show = parse_valid(valid, ids.numel(), n, held);
  check_enough_valid(may_show, ids.numel(), n, n_keep);
  const auto* data = static_cast<const float*>(given.data_ptr());
  const Draw draw{Logarithms(static_cast<const int32_t*>(table.data_ptr())),
                  n,
                  seed_value(seed_tensor, seed),
                  n_keep,
                  n_swapped,
                  invert,
                  may_show};
  switch (static_cast<DrawRule>(rule)) {
    case DrawRule::kWeights:
      draw_rows<DrawRule::kWeights>(draw, ids, data, out);
      break;
    case DrawRule::kLog2Weights:
      draw_rows<DrawRule::kLog2Weights>(draw, ids, data, out);
      break;
    case DrawRule::kScores:
      draw_rows<DrawRule::kScores>(draw, ids, data, out);
      break;
    default:
      SMNM_CHECK(false, "rule must be 0, 1 or 2, got ", rule);
  }
  return out.tuple();
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_FRAGMENT(smnm, m) {
  m.def(
      "draw_masks_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, Tensor values, "
      "Tensor table, int rule, int n_keep, bool invert, int n_swapped, Tensor? valid=None) -> "
      "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("draw_masks_from_table", TORCH_BOX(&smnm::draw_masks_from_table));
}
