// torch.ops.smnm.rbn_masks and rbn_bank for CPU tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/op_arguments.h"
#include "../common/rbn_arguments.h"
#include "buffer.h"
#include "mask_rows.h"
#include "rbn_runner.h"

namespace smnm {
namespace {

std::tuple<Tensor, Tensor, Tensor> rbn_masks(const Tensor& sample_ids,
                                             const std::optional<Tensor>& seed_tensor, int64_t seed,
                                             const std::vector<int64_t>& grid, int64_t n_keep,
                                             int64_t n_candidates,
                                             const std::vector<int64_t>& windows,
                                             const std::vector<int64_t>& weights, bool random_ties,
                                             const std::optional<Tensor>& valid) {
  const Tensor contiguous_ids = parse_sample_ids(sample_ids);
  check_rbn(grid, n_keep, n_candidates, windows, weights);
  const int64_t* ids = int64_data(contiguous_ids);
  const int64_t batch = contiguous_ids.numel();
  const int64_t n = grid[1] * grid[2];
  const MaskTensors out(contiguous_ids, batch, n, n_keep);
  Tensor held = contiguous_ids;
  const bool* may_show = parse_valid(valid, batch, n, held);
  check_enough_valid(may_show, batch, n, n_keep);
  seed = seed_value(seed_tensor, seed);
  const auto bank_of = [&](int64_t row) { return rbn_bank_of(ids[row], n_candidates); };
  // Samples of one bank share one run, wherever they stand in the batch; with `valid` only its
  // order.
  std::vector<int64_t> rows(batch), starts;
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) { return ids[a] < ids[b]; });
  for (int64_t i = 0; i < batch; ++i) {
    if (i == 0 || bank_of(rows[i]) != bank_of(rows[i - 1])) starts.push_back(i);
  }
  const auto n_banks = static_cast<int64_t>(starts.size());
  starts.push_back(batch);
  const RbnRule rule{windows, weights, random_ties};
  for_each_row(n_banks, n * n_candidates, [&]() -> RowBody {
    const auto runner = std::make_shared<RbnRunner>(grid[1], grid[2], n_candidates, n_keep, rule);
    const auto visible = std::make_shared<Buffer<uint8_t>>(n_candidates * n);
    return [&, runner, visible](int64_t b) {
      auto* masks = reinterpret_cast<bool*>(visible->data());
      const int64_t bank = bank_of(rows[starts[b]]);
      runner->draw_order(seed, bank);
      if (may_show == nullptr) runner->run(seed, bank, masks);
      for (int64_t i = starts[b]; i < starts[b + 1]; ++i) {
        if (may_show != nullptr) {
          runner->leave_out(may_show + rows[i] * n);
          runner->run(seed, bank, masks);
        }
        write_row(out, rows[i], masks + rbn_mask_of(ids[rows[i]], n_candidates) * n);
      }
    };
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
  // Without all positions, a mask might stay unfilled, and sweeps would never end.
  std::vector<bool> seen(n);
  for (int64_t i = 0; i < orders.numel(); ++i) {
    if (i % n == 0) seen.assign(n, false);
    SMNM_CHECK(positions[i] >= 0 && positions[i] < n && !seen[positions[i]],
               "order must hold permutations of the positions of the grid");
    seen[positions[i]] = true;
  }
  Tensor out =
      torch::stable::new_empty(orders, {orders.size(0), n_candidates, n}, ScalarType::Bool);
  auto* visible = static_cast<bool*>(out.data_ptr());
  seed = seed_value(seed_tensor, seed);
  const RbnRule rule{windows, weights, random_ties};
  for_each_row(orders.size(0), n * n_candidates, [&]() -> RowBody {
    const auto runner = std::make_shared<RbnRunner>(grid[1], grid[2], n_candidates, n_keep, rule);
    return [&, runner](int64_t bank) {
      runner->take_order(positions + bank * n);
      runner->run(seed, bank, visible + bank * n_candidates * n);
    };
  });
  return out;
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("rbn_masks", TORCH_BOX(&smnm::rbn_masks));
  m.impl("rbn_bank", TORCH_BOX(&smnm::rbn_bank));
}
