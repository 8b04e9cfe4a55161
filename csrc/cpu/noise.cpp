// Noise and its masks, from the integers of a noise table that smnm_kernels/dispatch.py passes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"

namespace smnm {
namespace {

Grid parse_grid(const std::vector<int64_t>& grid) {
  check_grid(grid);
  return {grid[0], grid[1], grid[2]};
}

NoiseTable parse_table(const std::vector<int64_t>& torus, const Tensor& taps, const Tensor& pairs,
                       const Tensor& scale, const Tensor& quantiles) {
  const Grid sides = parse_grid(torus);
  STD_TORCH_CHECK(
      pairs.size(0) == 0 ||
          (taps.dim() == 2 && taps.size(1) == sides.t + sides.h + sides.w && pairs.size(1) == 3 &&
           scale.size(0) == pairs.size(0) && taps.scalar_type() == ScalarType::Short &&
           pairs.scalar_type() == ScalarType::Short && scale.scalar_type() == ScalarType::Float &&
           quantiles.scalar_type() == ScalarType::Short && quantiles.numel() == kNQuantiles &&
           taps.is_contiguous() && pairs.is_contiguous() && scale.is_contiguous() &&
           quantiles.is_contiguous()),
      "taps, pairs, scale and quantiles must be those of one noise table");
  const int64_t n_pairs = pairs.size(0), n_taps = taps.size(0);
  const auto* level = static_cast<const int16_t*>(pairs.data_ptr());
  for (int64_t pair = 0; pair < n_pairs; ++pair, level += 3) {
    STD_TORCH_CHECK(level[0] >= 0 && level[0] < n_taps && level[1] < n_taps,
                    "pairs must name rows of taps");
  }
  return {sides,
          static_cast<const int16_t*>(taps.data_ptr()),
          static_cast<const int16_t*>(pairs.data_ptr()),
          static_cast<const float*>(scale.data_ptr()),
          n_pairs,
          static_cast<const int16_t*>(quantiles.data_ptr())};
}

// Calls body(row, field, scale) for every sample, on torch's threads.
template <class Body>
void for_each_field(const Tensor& sample_ids, int64_t seed, const Grid& grid,
                    const NoiseTable& table, const Body& body) {
  const int64_t* ids = int64_data(sample_ids);
  torch::stable::parallel_for(0, sample_ids.numel(), 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<NoiseMaker> maker = kernels().noise_maker(grid, table);
    std::vector<int32_t> field(grid.size() + kFieldSlack);
    for (int64_t row = begin; row < end; ++row) {
      const float scale = maker->make(seed, ids[row], field.data());
      body(row, field.data(), scale);
    }
  });
}

Tensor noise_from_table(const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor,
                        int64_t seed, const std::vector<int64_t>& grid,
                        const std::vector<int64_t>& torus, const Tensor& taps, const Tensor& pairs,
                        const Tensor& scale, const Tensor& quantiles) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const Grid sides = parse_grid(grid);
  Tensor out =
      torch::stable::new_empty(ids, {ids.numel(), sides.t, sides.h, sides.w}, ScalarType::Float);
  auto* values = static_cast<float*>(out.data_ptr());
  for_each_field(ids, seed_value(seed_tensor, seed), sides,
                 parse_table(torus, taps, pairs, scale, quantiles),
                 [&](int64_t row, const int32_t* field, float unit) {
                   float* to = values + row * sides.size();
                   for (int64_t i = 0; i < sides.size(); ++i) {
                     to[i] = static_cast<float>(field[i]) * unit;
                   }
                 });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> noise_masks_from_table(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const std::vector<int64_t>& grid, const std::vector<int64_t>& torus, const Tensor& taps,
    const Tensor& pairs, const Tensor& scale, const Tensor& quantiles, int64_t n_keep,
    int64_t frames) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const Grid sides = parse_grid(grid);
  check_n_keep(n_keep, frames * sides.size(), frames);
  const MaskTensors out(ids, ids.numel(), frames * sides.size(), n_keep);
  for_each_field(ids, seed_value(seed_tensor, seed), sides,
                 parse_table(torus, taps, pairs, scale, quantiles),
                 [&](int64_t row, const int32_t* field, float) {
                   bool* visible = visible_row(out, row);
                   kernels().threshold_ints(field, sides.size(), n_keep / frames, visible);
                   write_row(out, row, visible, frames);
                 });
  return out.tuple();
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_FRAGMENT(smnm, m) {
  m.def(
      "noise_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, int[] grid, int[] torus, "
      "Tensor taps, Tensor pairs, Tensor scale, Tensor quantiles) -> Tensor");
  m.def(
      "noise_masks_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, int[] grid, "
      "int[] torus, Tensor taps, Tensor pairs, Tensor scale, Tensor quantiles, int n_keep, "
      "int frames) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("noise_from_table", TORCH_BOX(&smnm::noise_from_table));
  m.impl("noise_masks_from_table", TORCH_BOX(&smnm::noise_masks_from_table));
}
