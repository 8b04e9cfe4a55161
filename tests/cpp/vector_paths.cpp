// Masks by the kernels of the CPU library, without torch, on the path that SMNM_VECTORS names:
// vector_paths PATH noise|rbn CALL [silent], where PATH is that name, again, and CALL is a file
// that bench/kernel_program.py writes and describes. Prints what it describes, or nothing.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/cpu/kernels.h"
#include "../../csrc/cpu/noise_table.h"
#include "../../csrc/cpu/rbn_runner.h"
#include "../../csrc/cpu/vector_path.h"

namespace {

bool silent = false;

template <class T>
std::vector<T> read(std::FILE* file, int64_t n) {
  std::vector<T> values(n);
  if (std::fread(values.data(), sizeof(T), n, file) != static_cast<size_t>(n)) std::abort();
  return values;
}

template <class T>
void print(const std::vector<T>& values) {
  if (!silent) std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

// One row of the mask tensors.
class Row {
 public:
  Row(int64_t n, int64_t n_keep) : visible_(n), ids_keep_(n_keep), ids_restore_(n) {}
  bool* visible() { return reinterpret_cast<bool*>(visible_.data()); }

  // `frame` holds the first of `frames` equal frames.
  void write(const bool* frame, int64_t frames) {
    const auto n = static_cast<int64_t>(visible_.size());
    smnm::kernels().write_masks(frame, n / frames, static_cast<int64_t>(ids_keep_.size()) / frames,
                                frames, visible(), ids_keep_.data(), ids_restore_.data());
    print(visible_);
    print(ids_keep_);
    print(ids_restore_);
  }

 private:
  std::vector<uint8_t> visible_;
  std::vector<int64_t> ids_keep_, ids_restore_;
};

void make_noise(std::FILE* call) {
  const auto head = read<int64_t>(call, 8);
  const smnm::Grid grid = {head[2], head[3], head[4]};
  const int64_t n_keep = head[5], frames = head[6], n = grid.size();
  const auto ids = read<int64_t>(call, head[1]);
  const auto packed = read<int32_t>(call, head[7]);
  smnm::NoiseTable table;
  if (smnm::read_table(packed.data(), head[7], &table) != nullptr) std::abort();
  const std::unique_ptr<smnm::NoiseMaker> maker = smnm::kernels().noise_maker(grid, table);
  std::vector<int32_t> field(n + smnm::kFieldSlack);
  Row row(n * frames, n_keep);
  for (const int64_t id : ids) {
    const float unit = maker->make(head[0], id, field.data());
    if (n_keep == 0) {
      std::vector<float> values(n);
      for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(field[i]) * unit;
      print(values);
      continue;
    }
    smnm::kernels().threshold_ints(field.data(), n, n_keep / frames, row.visible());
    row.write(row.visible(), frames);
  }
}

void make_banks(std::FILE* call) {
  const auto head = read<int64_t>(call, 9);
  const int64_t seed = head[0], height = head[2], width = head[3], n = height * width;
  const int64_t n_candidates = head[4], n_keep = head[5];
  const bool has_orders = head[8] != 0;
  smnm::RbnRule rule;
  rule.random_ties = head[6] != 0;
  rule.windows = read<int64_t>(call, head[7]);
  rule.weights = read<int64_t>(call, 4);
  const auto banks = read<int64_t>(call, head[1]);
  smnm::RbnRunner runner(height, width, n_candidates, n_keep, rule);
  std::vector<uint8_t> visible(n_candidates * n);
  Row row(n, n_keep);
  for (const int64_t bank : banks) {
    if (has_orders) {
      runner.take_order(read<int64_t>(call, n).data());
    } else {
      runner.draw_order(seed, bank);
    }
    runner.run(seed, bank, reinterpret_cast<bool*>(visible.data()));
    for (int64_t k = 0; k < n_candidates; ++k) {
      row.write(reinterpret_cast<bool*>(visible.data()) + k * n, 1);
    }
  }
}

}  // namespace

int main(int n_arguments, char** arguments) {
  if (std::strcmp(arguments[1], smnm::name_of(smnm::vector_path())) != 0) return 2;
  std::FILE* call = std::fopen(arguments[3], "rb");
  if (call == nullptr) return 1;
  silent = n_arguments > 4;
  if (std::strcmp(arguments[2], "noise") == 0) {
    make_noise(call);
  } else {
    make_banks(call);
  }
}
