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
#include "noise_table.h"

namespace smnm {
namespace {

Grid parse_grid(const std::vector<int64_t>& grid) {
  check_grid(grid);
  return {grid[0], grid[1], grid[2]};
}

NoiseTable parse_table(const Tensor& packed, const Grid& grid) {
  SMNM_CHECK(packed.scalar_type() == ScalarType::Int && packed.is_contiguous(),
             "table must be a packed noise table");
  NoiseTable table;
  const char* problem =
      read_table(static_cast<const int32_t*>(packed.data_ptr()), packed.numel(), &table);
  SMNM_CHECK(problem == nullptr, problem);
  parse_grid({table.torus.t, table.torus.h, table.torus.w});
  SMNM_CHECK(table.white() || (table.torus.t == 1) == (grid.t == 1),
             "table must be one of the dimensions of grid");
  return table;
}

// Calls body(row, field, scale) for every sample, on torch's threads.
template <class Body>
void for_each_field(const Tensor& sample_ids, int64_t seed, const Grid& grid,
                    const NoiseTable& table, const Body& body) {
  const int64_t* ids = int64_data(sample_ids);
  for_each_row(sample_ids.numel(), grid.size(), [&]() -> RowBody {
    struct Scratch {
      std::unique_ptr<NoiseMaker> maker;
      std::vector<int32_t> field;
    };
    const auto own = std::make_shared<Scratch>(Scratch{
        kernels().noise_maker(grid, table), std::vector<int32_t>(grid.size() + kFieldSlack)});
    return [&, own](int64_t row) {
      const float scale = own->maker->make(seed, ids[row], own->field.data());
      body(row, own->field.data(), scale);
    };
  });
}

Tensor noise_from_table(const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor,
                        int64_t seed, const std::vector<int64_t>& grid, const Tensor& table) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const Grid sides = parse_grid(grid);
  Tensor out =
      torch::stable::new_empty(ids, {ids.numel(), sides.t, sides.h, sides.w}, ScalarType::Float);
  auto* values = static_cast<float*>(out.data_ptr());
  for_each_field(ids, seed_value(seed_tensor, seed), sides, parse_table(table, sides),
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
    const std::vector<int64_t>& grid, const Tensor& table, int64_t n_keep, int64_t frames) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const Grid sides = parse_grid(grid);
  SMNM_CHECK(frames >= 1 && frames <= kMaxTokens, "frames must be in [1, ", kMaxTokens, "]");
  check_n_keep(n_keep, frames * sides.size(), frames);
  const MaskTensors out(ids, ids.numel(), frames * sides.size(), n_keep);
  for_each_field(ids, seed_value(seed_tensor, seed), sides, parse_table(table, sides),
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
      "noise_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, int[] grid, "
      "Tensor table) -> Tensor");
  m.def(
      "noise_masks_from_table(Tensor sample_ids, Tensor? seed_tensor, int seed, int[] grid, "
      "Tensor table, int n_keep, int frames) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("noise_from_table", TORCH_BOX(&smnm::noise_from_table));
  m.impl("noise_masks_from_table", TORCH_BOX(&smnm::noise_masks_from_table));
}
