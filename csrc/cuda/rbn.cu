// torch.ops.smnm.rbn_masks and rbn_bank for CUDA tensors: one launch each, a thread block per bank.
// The host reads nothing from the device, so calls do not wait for it and CUDA graphs can capture
// them.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/op_arguments.h"
#include "../common/rbn_arguments.h"
#include "../common/rbn_rounds_arguments.h"
#include "../common/rbn_thread_block.h"
#include "cuda_block.h"

namespace smnm {
namespace {

// A round at 64 by 8 has about 20 positions with 16 neighbours each: mostly one pass of the block.
constexpr int kThreadBits = 9, kThreads = 1 << kThreadBits;
static_assert(kThreads <= kMaxThreads);

// Memory for the states of banks that do not fit in shared memory: `slice` bytes for each block.
struct Workspace {
  char* memory;
  size_t slice;
};

template <bool kShared, class Pair>
__device__ __forceinline__ RoundsState<Pair> block_state(const RoundsShape& shape,
                                                         const Workspace& workspace) {
  extern __shared__ int4 shared[];
  if constexpr (kShared) {
    return rounds_state<Pair>(shape, reinterpret_cast<char*>(shared));
  } else {
    return rounds_state<Pair>(shape, workspace.memory + blockIdx.x * workspace.slice);
  }
}

// A seed; a tensor's is read on the device.
struct Seed {
  const int64_t* tensor;
  int64_t value;
  __device__ __forceinline__ int64_t read() const { return tensor == nullptr ? value : *tensor; }
};

template <bool kShared, class Pair, int kFew, bool kRandomTies>
__global__ void __launch_bounds__(kThreads, kShared && sizeof(Pair) == 4 ? 2 : 1)
    rbn_masks_kernel(const __grid_constant__ RoundsShape shape, Workspace workspace, MaskRows rows,
                     Seed seed) {
  CudaBlock<kThreadBits> block;
  const auto state = block_state<kShared, Pair>(shape, workspace);
  for (int64_t row = blockIdx.x; row < rows.batch; row += gridDim.x) {
    run_masks_row<RoundsVariant<kFew, kRandomTies>>(block, shape, state, rows, row, seed.read());
    block.barrier();
  }
}

template <bool kShared, class Pair>
__global__ void __launch_bounds__(kThreads, kShared && sizeof(Pair) == 4 ? 2 : 1)
    rbn_bank_kernel(const __grid_constant__ RoundsShape shape, Workspace workspace,
                    const int64_t* orders, int64_t n_orders, Seed seed, bool* visible) {
  CudaBlock<kThreadBits> block;
  const auto state = block_state<kShared, Pair>(shape, workspace);
  const int64_t n = shape.n_tokens;
  for (int64_t bank = blockIdx.x; bank < n_orders; bank += gridDim.x) {
    run_order<AnyVariant>(block, shape, state, orders + bank * n, seed.read(), bank,
                          visible + bank * shape.n_candidates * n);
    block.barrier();
  }
}

template <int kFew, bool kRandomTies>
auto masks_kernel(RoundsVariant<kFew, kRandomTies>) {
  return rbn_masks_kernel<true, int32_t, kFew, kRandomTies>;
}

int device_attribute(cudaDeviceAttr attribute, int32_t device) {
  int value = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

// The number of blocks for banks that need `slice` bytes of workspace each: enough to fill the
// device, and as many as fit in 1 GB, but at least one. Of consecutive rows, every n_candidates-th
// runs a bank. The number of blocks and n_candidates have no common divisor, so that every block
// gets its share of these rows.
int64_t workspace_blocks(int64_t n_items, int64_t slice, int64_t n_candidates, int32_t device) {
  const int64_t wanted = 2 * device_attribute(cudaDevAttrMultiProcessorCount, device);
  int64_t n_blocks = std::min({n_items, wanted, std::max<int64_t>(1, (int64_t{1} << 30) / slice)});
  while (std::gcd(n_blocks, n_candidates) != 1) --n_blocks;
  return n_blocks;
}

// One launch with a block for each of `n_items`, or with fewer that share a workspace.
template <class... Parameters, class... Arguments>
void launch(void (*in_shared)(RoundsShape, Workspace, Parameters...),
            void (*in_workspace)(RoundsShape, Workspace, Parameters...), const Tensor& like,
            const RoundsShape& shape, int64_t n_items, const Arguments&... arguments) {
  if (n_items == 0) return;
  const int32_t device = like.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const auto bytes = static_cast<size_t>(shape.bytes);
  const auto limit =
      static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (bytes <= limit) {
    // More than 48 KB of shared memory must be requested.
    if (bytes > 48 << 10)
      STD_CUDA_CHECK(cudaFuncSetAttribute(in_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(bytes)));
    const auto n_blocks = static_cast<unsigned>(std::min<int64_t>(n_items, INT32_MAX));
    in_shared<<<n_blocks, kThreads, bytes, cuda_stream>>>(shape, {nullptr, 0}, arguments...);
  } else {
    const auto slice = static_cast<int64_t>(bytes);
    const int64_t n_blocks = workspace_blocks(n_items, slice, shape.n_candidates, device);
    // Freed memory is reused in stream order, so the tensor may go before the kernel ends.
    const Tensor workspace = torch::stable::new_empty(like, {n_blocks * slice}, ScalarType::Byte);
    in_workspace<<<static_cast<unsigned>(n_blocks), kThreads, 0, cuda_stream>>>(
        shape, {static_cast<char*>(workspace.data_ptr()), bytes}, arguments...);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Seed parse_seed(const std::optional<Tensor>& seed_tensor, int64_t seed, const Tensor& like) {
  check_seed(seed_tensor);
  if (!seed_tensor) return {nullptr, seed};
  if (seed_tensor->is_cpu()) return {nullptr, *int64_data(*seed_tensor)};
  SMNM_CHECK(seed_tensor->is_cuda() && seed_tensor->get_device_index() == like.get_device_index(),
             "seed_tensor must be on the CPU or on the device of the masks");
  return {int64_data(*seed_tensor), 0};
}

std::tuple<Tensor, Tensor, Tensor> rbn_masks(const Tensor& sample_ids,
                                             const std::optional<Tensor>& seed_tensor, int64_t seed,
                                             const std::vector<int64_t>& grid, int64_t n_keep,
                                             int64_t n_candidates,
                                             const std::vector<int64_t>& windows,
                                             const std::vector<int64_t>& weights, bool random_ties,
                                             const std::optional<Tensor>& valid) {
  const Tensor ids = parse_sample_ids(sample_ids);
  const RoundsShape shape = parse_rounds(grid, n_keep, n_candidates, windows, weights, random_ties);
  const MaskTensors out(ids, ids.numel(), shape.n_tokens, n_keep);
  Tensor held = ids;
  SMNM_CHECK(!valid || (valid->is_cuda() && valid->get_device_index() == ids.get_device_index()),
             "valid must be on the device of sample_ids");
  const MaskRows rows = mask_rows(ids, out, parse_valid(valid, ids.numel(), shape.n_tokens, held));
  const Seed from = parse_seed(seed_tensor, seed, ids);
  with_pairs(shape, [&](auto pair) {
    using Pair = decltype(pair);
    // Banks that do not fit in shared memory are slow anyway, so one kernel serves all of them.
    constexpr auto in_workspace = rbn_masks_kernel<false, Pair, 0, false>;
    if constexpr (sizeof(Pair) == 8) {
      launch(rbn_masks_kernel<true, Pair, 0, false>, in_workspace, ids, shape, ids.numel(), rows,
             from);
    } else {
      with_variant(shape, [&](auto variant) {
        launch(masks_kernel(variant), in_workspace, ids, shape, ids.numel(), rows, from);
      });
    }
  });
  return out.tuple();
}

Tensor rbn_bank(const Tensor& order, const std::optional<Tensor>& seed_tensor, int64_t seed,
                const std::vector<int64_t>& grid, int64_t n_keep, int64_t n_candidates,
                const std::vector<int64_t>& windows, const std::vector<int64_t>& weights,
                bool random_ties) {
  const RoundsShape shape = parse_rounds(grid, n_keep, n_candidates, windows, weights, random_ties);
  const Tensor orders = parse_orders(order, shape.n_tokens);
  Tensor out = torch::stable::new_empty(orders, {orders.size(0), n_candidates, shape.n_tokens},
                                        ScalarType::Bool);
  const Seed from = parse_seed(seed_tensor, seed, orders);
  with_pairs(shape, [&](auto pair) {
    using Pair = decltype(pair);
    launch(rbn_bank_kernel<true, Pair>, rbn_bank_kernel<false, Pair>, orders, shape, orders.size(0),
           int64_data(orders), orders.size(0), from, static_cast<bool*>(out.data_ptr()));
  });
  return out;
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_IMPL(smnm, CUDA, m) {
  m.impl("rbn_masks", TORCH_BOX(&smnm::rbn_masks));
  m.impl("rbn_bank", TORCH_BOX(&smnm::rbn_bank));
}
