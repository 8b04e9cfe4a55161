// torch.ops.smnm_by_rounds: the CUDA ops' algorithm on the CPU, the threads in an order drawn from
// `shuffle`.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <tuple>
#include <vector>

#include "../../csrc/common/op_arguments.h"
#include "../../csrc/common/rbn_arguments.h"
#include "../../csrc/common/rbn_rounds_arguments.h"
#include "../../csrc/common/rbn_thread_block.h"
#include "shuffled_block.h"

namespace smnm {
namespace {

// Memory that holds nothing, as a GPU's: what is read before it is written is 0xA5A5A5A5.
struct Run {
  RoundsShape shape;
  std::vector<std::max_align_t> memory;
  ShuffledBlock block;

  Run(const RoundsShape& of, int64_t shuffle)
      : shape(of),
        memory(of.bytes / sizeof(std::max_align_t) + 1),
        block(static_cast<uint64_t>(shuffle)) {
    auto* bytes = reinterpret_cast<unsigned char*>(memory.data());
    std::fill(bytes, bytes + memory.size() * sizeof(std::max_align_t), 0xA5);
  }

  // Calls body(the block's state).
  template <class Body>
  void with_state(const Body& body) {
    with_pairs(shape, [&](auto pair) {
      body(rounds_state<decltype(pair)>(shape, reinterpret_cast<char*>(memory.data())));
    });
  }
};

std::tuple<Tensor, Tensor, Tensor, int64_t> rbn_masks(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
    const std::vector<int64_t>& windows, const std::vector<int64_t>& weights, bool random_ties,
    int64_t shuffle, const std::optional<Tensor>& valid) {
  const Tensor ids = parse_sample_ids(sample_ids);
  Run run(parse_rounds(grid, n_keep, n_candidates, windows, weights, random_ties), shuffle);
  const MaskTensors out(ids, ids.numel(), run.shape.n_tokens, n_keep);
  Tensor held = ids;
  const MaskRows rows =
      mask_rows(ids, out, parse_valid(valid, ids.numel(), run.shape.n_tokens, held));
  seed = seed_value(seed_tensor, seed);
  int64_t n_runs = 0;
  run.with_state([&](const auto& state) {
    with_variant(run.shape, [&](auto variant) {
      for (int64_t row = 0; row < rows.batch; ++row) {
        n_runs += run_masks_row<decltype(variant)>(run.block, run.shape, state, rows, row, seed);
      }
    });
  });
  return {out.visible, out.ids_keep, out.ids_restore, n_runs};
}

Tensor rbn_bank(const Tensor& order, const std::optional<Tensor>& seed_tensor, int64_t seed,
                const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
                const std::vector<int64_t>& windows, const std::vector<int64_t>& weights,
                bool random_ties, int64_t shuffle) {
  Run run(parse_rounds(grid, n_keep, n_candidates, windows, weights, random_ties), shuffle);
  const int64_t n = run.shape.n_tokens;
  const Tensor orders = parse_orders(order, n);
  Tensor out =
      torch::stable::new_empty(orders, {orders.size(0), n_candidates, n}, ScalarType::Bool);
  auto* visible = static_cast<bool*>(out.data_ptr());
  seed = seed_value(seed_tensor, seed);
  run.with_state([&](const auto& state) {
    for (int64_t bank = 0; bank < orders.size(0); ++bank) {
      run_order<AnyVariant>(run.block, run.shape, state, int64_data(orders) + bank * n, seed, bank,
                            visible + bank * n_candidates * n);
    }
  });
  return out;
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY(smnm_by_rounds, m) {
  m.def(
      "rbn_masks(Tensor sample_ids, Tensor? seed_tensor, int seed, int[] grid, int n_keep, "
      "int n_candidates, int[] windows, int[] weights, bool random_ties, int shuffle, "
      "Tensor? valid=None) "
      "-> (Tensor visible, Tensor ids_keep, Tensor ids_restore, int n_runs)");
  m.def(
      "rbn_bank(Tensor order, Tensor? seed_tensor, int seed, int[] grid, int n_keep, "
      "int n_candidates, int[] windows, int[] weights, bool random_ties, int shuffle) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(smnm_by_rounds, CPU, m) {
  m.impl("rbn_masks", TORCH_BOX(&smnm::rbn_masks));
  m.impl("rbn_bank", TORCH_BOX(&smnm::rbn_bank));
}
