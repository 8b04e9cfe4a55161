// Noise masks by the kernels of the CPU library, on the path that SMNM_VECTORS names:
// vector_paths PATH CALL, where PATH is that name, again, and the file CALL holds int64s (seed,
// n_ids, grid, torus, n_levels, n_pairs, n_keep), the ids, and the arrays of a noise table. Prints
// int64s: for each id what write_masks makes, `visible` a byte each.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/cpu/kernels.h"
#include "../../csrc/cpu/vector_path.h"

namespace {

template <class T>
std::vector<T> read(std::FILE* file, int64_t n) {
  std::vector<T> values(n);
  if (std::fread(values.data(), sizeof(T), n, file) != static_cast<size_t>(n)) std::abort();
  return values;
}

template <class T>
void print(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

}  // namespace

int main(int, char** arguments) {
  if (std::strcmp(arguments[1], smnm::name_of(smnm::vector_path())) != 0) return 2;
  std::FILE* call = std::fopen(arguments[2], "rb");
  if (call == nullptr) return 1;
  const auto head = read<int64_t>(call, 11);
  const smnm::Grid grid = {head[2], head[3], head[4]}, torus = {head[5], head[6], head[7]};
  const int64_t n_levels = head[8], n_pairs = head[9], n_keep = head[10], n = grid.size();
  const auto ids = read<int64_t>(call, head[1]);
  const auto taps = read<int16_t>(call, n_levels * (torus.t + torus.h + torus.w));
  const auto pairs = read<int16_t>(call, 3 * n_pairs);
  const auto scale = read<float>(call, n_pairs);
  const auto quantiles = read<int16_t>(call, n_pairs == 0 ? 0 : 4096);
  const smnm::Kernels& kernels = smnm::kernels();
  const std::unique_ptr<smnm::NoiseMaker> maker = kernels.noise_maker(
      grid, {torus, taps.data(), pairs.data(), scale.data(), n_pairs, quantiles.data()});
  std::vector<int32_t> field(n + smnm::kFieldSlack);
  std::vector<uint8_t> visible(n);
  std::vector<int64_t> ids_keep(n_keep), ids_restore(n);
  for (const int64_t id : ids) {
    maker->make(head[0], id, field.data());
    auto* shown = reinterpret_cast<bool*>(visible.data());
    kernels.threshold_ints(field.data(), n, n_keep, shown);
    kernels.write_masks(shown, n, n_keep, 1, shown, ids_keep.data(), ids_restore.data());
    print(visible);
    print(ids_keep);
    print(ids_restore);
  }
}
