// Weighted draws for CPU tensors, from the tables that smnm_kernels/dispatch.py passes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/logarithms.h"
#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"
#include "philox_blocks.h"

namespace smnm {
namespace {

constexpr int64_t kBlocks = 64;  // Philox blocks drawn at a time

// The largest keys are those of the visible tokens.
void fill_keys(const Logarithms& logarithms, const PhiloxSequence& sequence, const float* weights,
               int64_t n, bool invert, int32_t* keys) {
  const int64_t q = (n + 3) / 4;
  const int32_t flip = invert ? 0 : -1;
  uint32_t words[4 * kBlocks];
  for (int64_t b = 0; b < q; b += kBlocks) {
    philox_blocks(sequence, static_cast<uint32_t>(b), kBlocks, kBlocks, words);
    for (int j = 0; j < 4; ++j) {
      const int64_t first = j * q + b, count = std::min(kBlocks, std::min(q - b, n - first));
      for (int64_t i = 0; i < count; ++i) {
        keys[first + i] =
            flip ^ draw_key(logarithms, weights[first + i], words[j * kBlocks + i]);
      }
    }
  }
}

// `weights` is float32 [B, N].
std::tuple<Tensor, Tensor, Tensor> weighted_masks_from_table(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const Tensor& weights, const Tensor& table, int64_t n_keep, bool invert) {
  const Tensor ids = parse_sample_ids(sample_ids), given = as_contiguous(weights);
  STD_TORCH_CHECK(given.dim() == 2 && given.scalar_type() == ScalarType::Float &&
                      given.size(0) == ids.numel() && given.size(1) <= kMaxTokens,
                  "weights must be float32 [B, N]");
  STD_TORCH_CHECK(table.scalar_type() == ScalarType::Int && table.is_contiguous() &&
                      table.numel() == Logarithms::kSize,
                  "table must be the packed logarithms");
  const int64_t n = given.size(1), value = seed_value(seed_tensor, seed);
  check_n_keep(n_keep, n);
  const MaskTensors out(ids, ids.numel(), n, n_keep);
  const Logarithms logarithms(static_cast<const int32_t*>(table.data_ptr()));
  const auto* values = static_cast<const float*>(given.data_ptr());
  for_each_row(ids.numel(), n, [&]() -> RowBody {
    return [&, keys = std::vector<int32_t>(n)](int64_t row) mutable {
      const PhiloxSequence words = philox_sequence(value, kDraw, int64_data(ids)[row]);
      fill_keys(logarithms, words, values + row * n, n, invert, keys.data());
      bool* visible = visible_row(out, row);
      kernels().threshold_ints(keys.data(), n, n_keep, visible);
      write_row(out, row, visible);
    };
  });
  return out.tuple();
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_FRAGMENT(smnm, m) {
  m.def(
      "weighted_masks_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, "
      "Tensor weights, Tensor table, int n_keep, bool invert) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("weighted_masks_from_table", TORCH_BOX(&smnm::weighted_masks_from_table));
}
