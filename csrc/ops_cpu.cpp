// The CPU ops behind torch.ops.smnm, on LibTorch's stable ABI: one build serves torch 2.10 and
// later. Arguments are checked in Python (smnm_kernels/calls.py), where the type of an error can be
// chosen; the checks here only keep a direct call of an op from touching memory that is not its
// own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "buffer.h"
#include "noise.h"
#include "op_arguments.h"
#include "rbn.h"
#include "select.h"
#include "simd.h"

namespace smnm {
namespace {

bool* visible_row(const MaskTensors& out, int64_t row) {
  return static_cast<bool*>(out.visible.data_ptr()) + row * out.visible.size(1);
}

// `frame` holds the first of `frames` equal frames.
void write_row(const MaskTensors& out, int64_t row, const bool* frame, int64_t frames = 1) {
  const int64_t n = out.visible.size(1), n_keep = out.ids_keep.size(1);
  write_masks(frame, n / frames, n_keep / frames, frames, visible_row(out, row),
              static_cast<int64_t*>(out.ids_keep.data_ptr()) + row * n_keep,
              static_cast<int64_t*>(out.ids_restore.data_ptr()) + row * n);
}

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
           quantiles.scalar_type() == ScalarType::Short && quantiles.numel() == 4096 &&
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

// Calls body(sample id, row, field, scale) for every sample, on torch's threads.
template <class Body>
void for_each_field(const Tensor& sample_ids, int64_t seed, const Grid& grid,
                    const NoiseTable& table, const Body& body) {
  const int64_t* ids = int64_data(sample_ids);
  torch::stable::parallel_for(0, sample_ids.numel(), 1, [&](int64_t begin, int64_t end) {
    NoiseMaker maker(grid, table);
    std::vector<int32_t> field(grid.size() + kLanes);
    for (int64_t row = begin; row < end; ++row) {
      const float scale = maker.make(seed, ids[row], field.data());
      body(row, field.data(), scale);
    }
  });
}

Tensor noise(const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
             const std::vector<int64_t>& grid, const std::vector<int64_t>& torus,
             const Tensor& taps, const Tensor& pairs, const Tensor& scale,
             const Tensor& quantiles) {
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

std::tuple<Tensor, Tensor, Tensor> noise_masks(const Tensor& sample_ids,
                                               const std::optional<Tensor>& seed_tensor,
                                               int64_t seed, const std::vector<int64_t>& grid,
                                               const std::vector<int64_t>& torus,
                                               const Tensor& taps, const Tensor& pairs,
                                               const Tensor& scale, const Tensor& quantiles,
                                               int64_t n_keep, int64_t frames) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const Grid sides = parse_grid(grid);
  check_n_keep(n_keep, frames * sides.size(), frames);
  const MaskTensors out(ids, ids.numel(), frames * sides.size(), n_keep);
  for_each_field(ids, seed_value(seed_tensor, seed), sides,
                 parse_table(torus, taps, pairs, scale, quantiles),
                 [&](int64_t row, const int32_t* field, float) {
                   bool* visible = visible_row(out, row);
                   select_largest(field, sides.size(), n_keep / frames, visible);
                   write_row(out, row, visible, frames);
                 });
  return out.tuple();
}

// The order of torch.sort: -0 equals 0, NaN is above everything.
template <class Float, class Bits>
Bits ordered(Float value) {
  if (value != value) return std::numeric_limits<Bits>::max();
  if (value == 0) return 0;
  Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits < 0 ? static_cast<Bits>(std::numeric_limits<Bits>::min() - bits) : bits;
}

template <class Float, class Bits>
void threshold_rows(const Tensor& noise, const MaskTensors& out) {
  const auto* values = static_cast<const Float*>(noise.data_ptr());
  const int64_t n = noise.size(1), n_keep = out.ids_keep.size(1);
  torch::stable::parallel_for(0, noise.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<Bits> keys(n);
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < n; ++i) keys[i] = ordered<Float, Bits>(values[row * n + i]);
      bool* visible = visible_row(out, row);
      select_largest(keys.data(), n, n_keep, visible);
      write_row(out, row, visible);
    }
  });
}

// `noise` is float32 or float64 [B, N].
std::tuple<Tensor, Tensor, Tensor> threshold(const Tensor& noise, int64_t n_keep) {
  const Tensor values = torch::stable::contiguous(noise);
  STD_TORCH_CHECK(values.dim() == 2 && (values.scalar_type() == ScalarType::Double ||
                                        values.scalar_type() == ScalarType::Float),
                  "noise must be float32 or float64 [B, N]");
  check_n_keep(n_keep, values.size(1));
  const MaskTensors out(values, values.size(0), values.size(1), n_keep);
  if (values.scalar_type() == ScalarType::Double) {
    threshold_rows<double, int64_t>(values, out);
  } else {
    threshold_rows<float, int32_t>(values, out);
  }
  return out.tuple();
}

std::tuple<Tensor, Tensor, Tensor> rbn_masks(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
    const std::vector<int64_t>& windows, const std::vector<int64_t>& weights, bool random_ties) {
  const Tensor contiguous_ids = parse_sample_ids(sample_ids);
  check_rbn(grid, n_keep, n_candidates, windows, weights);
  const int64_t* ids = int64_data(contiguous_ids);
  const int64_t batch = contiguous_ids.numel();
  const int64_t n = grid[1] * grid[2];
  const MaskTensors out(contiguous_ids, batch, n, n_keep);
  seed = seed_value(seed_tensor, seed);
  const auto bank_of = [&](int64_t row) { return rbn_bank_of(ids[row], n_candidates); };
  // Samples of one bank share one run, wherever they stand in the batch.
  std::vector<int64_t> rows(batch), starts;
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) { return ids[a] < ids[b]; });
  for (int64_t i = 0; i < batch; ++i) {
    if (i == 0 || bank_of(rows[i]) != bank_of(rows[i - 1])) starts.push_back(i);
  }
  const auto n_banks = static_cast<int64_t>(starts.size());
  starts.push_back(batch);
  const RbnRule rule{windows, weights, random_ties};
  with_rbn_banks(grid[1], grid[2], n_candidates, n_keep, rule, [&](const auto& make_runner) {
    torch::stable::parallel_for(0, n_banks, 1, [&](int64_t begin, int64_t end) {
      auto runner = make_runner();
      Buffer<uint8_t> visible(n_candidates * n);
      auto* masks = reinterpret_cast<bool*>(visible.data());
      for (int64_t b = begin; b < end; ++b) {
        const int64_t bank = bank_of(rows[starts[b]]);
        runner.run(runner.draw_order(seed, bank), seed, bank, masks);
        for (int64_t i = starts[b]; i < starts[b + 1]; ++i) {
          write_row(out, rows[i], masks + rbn_mask_of(ids[rows[i]], n_candidates) * n);
        }
      }
    });
  });
  return out.tuple();
}

// Row g of `order` (int64) is bank g.
Tensor rbn_bank(const Tensor& order, const std::optional<Tensor>& seed_tensor, int64_t seed,
                const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
                const std::vector<int64_t>& windows, const std::vector<int64_t>& weights,
                bool random_ties) {
  check_rbn(grid, n_keep, n_candidates, windows, weights);
  const int64_t n = grid[1] * grid[2];
  const Tensor orders = parse_orders(order, n);
  const int64_t* positions = int64_data(orders);
  // A position that is missing could leave a mask that no sweep fills.
  std::vector<bool> seen(n);
  for (int64_t i = 0; i < orders.numel(); ++i) {
    if (i % n == 0) seen.assign(n, false);
    STD_TORCH_CHECK(positions[i] >= 0 && positions[i] < n && !seen[positions[i]],
                    "order must hold permutations of the positions of the grid");
    seen[positions[i]] = true;
  }
  Tensor out =
      torch::stable::new_empty(orders, {orders.size(0), n_candidates, n}, ScalarType::Bool);
  auto* visible = static_cast<bool*>(out.data_ptr());
  seed = seed_value(seed_tensor, seed);
  const RbnRule rule{windows, weights, random_ties};
  with_rbn_banks(grid[1], grid[2], n_candidates, n_keep, rule, [&](const auto& make_runner) {
    torch::stable::parallel_for(0, orders.size(0), 1, [&](int64_t begin, int64_t end) {
      auto runner = make_runner();
      for (int64_t bank = begin; bank < end; ++bank) {
        runner.run(positions + bank * n, seed, bank, visible + bank * n_candidates * n);
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace smnm

// What the Python kernels of smnm_kernels/ops.py call with the integers of a noise table.
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
  m.impl("noise_from_table", TORCH_BOX(&smnm::noise));
  m.impl("noise_masks_from_table", TORCH_BOX(&smnm::noise_masks));
  m.impl("threshold", TORCH_BOX(&smnm::threshold));
  m.impl("rbn_masks", TORCH_BOX(&smnm::rbn_masks));
  m.impl("rbn_bank", TORCH_BOX(&smnm::rbn_bank));
}
