// torch.ops.smnm.structure_masks for CPU tensors, as smnm_kernels/reference/structures.py defines
// it.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../common/op_arguments.h"
#include "kernels.h"
#include "mask_rows.h"
#include "row_words.h"

namespace smnm {
namespace {

using Numbers = std::vector<int64_t>;

int64_t number_of_word(uint32_t word) { return word >> (32 - kWhiteBits); }
int64_t uniform(int64_t number, int64_t n) { return number * n >> kWhiteBits; }
int64_t between(int64_t number, int64_t least, int64_t most) {
  return least + uniform(number, most - least + 1);
}

// What the marks of one sample depend on.
struct Sample {
  int64_t frames, height, width;
  const int64_t* parameters;
  int64_t seed, id;  // of the structure's random numbers

  int64_t in_frame() const { return height * width; }

  // n random numbers, in segments.
  Numbers numbers(int64_t n) const {
    Numbers made(n);
    for_each_word(seed, kNoise, id, n,
                  [&](int64_t i, uint32_t word) { made[i] = number_of_word(word); });
    return made;
  }

  // The four numbers of each of the first n blocks of Philox.
  class Fours {
   public:
    Fours(const Sample& sample, int64_t n) {
      philox_blocks(philox_sequence(sample.seed, kNoise, sample.id), 0, n, kMost, words_);
    }
    int64_t operator()(int64_t block, int word) const {
      return number_of_word(words_[word * kMost + block]);
    }

   private:
    static constexpr int64_t kMost = 2 + kMaxTargetBlocks;
    static_assert(kNBlocks <= kMost && kNBands <= kMost, "there is room for all");
    uint32_t words_[4 * kMost];
  };
};

struct Block {
  int64_t top, left, rows, columns;
};

// What lies outside the grid is left out.
void paint(const Sample& sample, const Block& block, int32_t mark, int32_t* marks) {
  const int64_t top = std::max<int64_t>(block.top, 0), left = std::max<int64_t>(block.left, 0);
  const int64_t bottom = std::min(block.top + block.rows, sample.height);
  const int64_t right = std::min(block.left + block.columns, sample.width);
  for (int64_t y = top; y < bottom; ++y) {
    std::fill(marks + y * sample.width + left, marks + y * sample.width + right, mark);
  }
}

void mark_lattice(const Sample& sample, int32_t* marks) {
  const int64_t period_y = sample.parameters[0], period_x = sample.parameters[1];
  const Numbers number = sample.numbers(2);
  std::fill(marks, marks + sample.in_frame(), 0);
  for (int64_t y = uniform(number[0], period_y); y < sample.height; y += period_y) {
    for (int64_t x = uniform(number[1], period_x); x < sample.width; x += period_x) {
      marks[y * sample.width + x] = 1;
    }
  }
}

void mark_blocks(const Sample& sample, int32_t* marks) {
  const Sample::Fours number(sample, kNBlocks);
  const auto length = [](int64_t drawn, int64_t side) {
    return between(drawn, (side + 3) / 4, (side + 1) / 2);
  };
  std::fill(marks, marks + sample.in_frame(), kNBlocks);
  // The first block that covers a place is painted last.
  for (int32_t i = kNBlocks - 1; i >= 0; --i) {
    const int64_t rows = length(number(i, 0), sample.height);
    const int64_t columns = length(number(i, 2), sample.width);
    const int64_t top = uniform(number(i, 1), sample.height - rows + 1);
    const int64_t left = uniform(number(i, 3), sample.width - columns + 1);
    paint(sample, {top, left, rows, columns}, i, marks);
  }
}

void mark_inverse_blocks(const Sample& sample, int32_t* marks) {
  const int64_t size = sample.parameters[0];
  std::fill(marks, marks + sample.in_frame(), 0);
  for (const int64_t number : sample.numbers(sample.parameters[1])) {
    const int64_t centre = uniform(number, sample.in_frame());
    paint(sample, {centre / sample.width - size / 2, centre % sample.width - size / 2, size, size},
          1, marks);
  }
}

// The indices of n numbers, the largest first; of equal ones, the first comes first.
Numbers largest_first(const int64_t* numbers, int64_t n) {
  Numbers order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return numbers[a] > numbers[b]; });
  return order;
}

void mark_time_frequency(const Sample& sample, int32_t* marks) {
  const Numbers number = sample.numbers(sample.height + sample.width);
  const Numbers rows = largest_first(number.data(), sample.height);
  const Numbers columns = largest_first(number.data() + sample.height, sample.width);
  std::fill(marks, marks + sample.in_frame(), 0);
  for (int64_t i = 0; i < sample.parameters[0]; ++i) {
    for (int64_t j = 0; j < sample.parameters[1]; ++j) {
      marks[rows[i] * sample.width + columns[j]] = 1;
    }
  }
}

void mark_bands(const Sample& sample, int32_t* marks) {
  const int64_t time_bands = sample.parameters[0], of_round = time_bands + sample.parameters[1];
  const Sample::Fours number(sample, kNBands);
  std::vector<int32_t> first_of_row(sample.height, kNBands), first_of_column(sample.width, kNBands);
  for (int32_t i = kNBands - 1; i >= 0; --i) {
    const bool is_time = i * time_bands % of_round < time_bands;
    auto& first = is_time ? first_of_row : first_of_column;
    const int64_t length = 1 + uniform(number(i, 0), sample.parameters[is_time ? 2 : 3]);
    const auto side = static_cast<int64_t>(first.size());
    std::fill_n(first.begin() + uniform(number(i, 1), side - length + 1), length, i);
  }
  for (const int32_t of_row : first_of_row) {
    for (const int32_t of_column : first_of_column) *marks++ = std::min(of_row, of_column);
  }
}

void mark_frames(const Sample& sample, int32_t* marks) {
  const bool of_rows = sample.frames == 1;
  const int64_t n = of_rows ? sample.height : sample.frames;
  const int64_t size = of_rows ? sample.width : sample.in_frame();
  const Numbers order = largest_first(sample.numbers(n).data(), n);
  for (int64_t rank = 0; rank < n; ++rank) {
    const int64_t after_whole = std::max<int64_t>(0, rank + 1 - sample.parameters[0]);
    const int64_t mark = std::max<int64_t>(0, kMaxMark - after_whole);
    std::fill_n(marks + order[rank] * size, size, static_cast<int32_t>(mark));
  }
}

// floor(sqrt(x)); double is exact for x below 2^52.
int64_t integer_sqrt(int64_t x) { return static_cast<int64_t>(std::sqrt(static_cast<double>(x))); }

// Of at least `area` patches, about `aspect` thousandths of rows for a column.
Block block_of_area(const Sample& sample, int64_t area, int64_t aspect) {
  int64_t rows = (integer_sqrt(4 * area * aspect / 1000) + 1) / 2;
  rows = std::min(std::max<int64_t>(rows, 1), sample.height);
  int64_t columns = (area + rows - 1) / rows;
  if (columns > sample.width) {
    columns = sample.width;
    rows = (area + columns - 1) / columns;
  }
  return {0, 0, rows, columns};
}

// A block of this size, at a random place.
Block placed(const Sample& sample, const Block& size, int64_t number_y, int64_t number_x) {
  return {uniform(number_y, sample.height - size.rows + 1),
          uniform(number_x, sample.width - size.columns + 1), size.rows, size.columns};
}

// The target blocks of a sample, which have one size. `limits` are the least and the most area, and
// the least and the most aspect.
Block target_size(const Sample& sample, const Sample::Fours& number, const int64_t* limits) {
  return block_of_area(sample, between(number(0, 0), limits[0], limits[1]),
                       between(number(0, 1), limits[2], limits[3]));
}

Block target_at(const Sample& sample, const Sample::Fours& number, const Block& size, int64_t i) {
  return placed(sample, size, number(2 + i, 0), number(2 + i, 1));
}

void mark_multi_block(const Sample& sample, int32_t* marks) {
  const int64_t* parameters = sample.parameters;
  const auto n_blocks = static_cast<int32_t>(parameters[0]);
  const Sample::Fours number(sample, 2 + n_blocks);
  const int64_t area = between(number(1, 0), parameters[5], parameters[6]);
  const Block context = block_of_area(sample, area, 1000);
  std::fill(marks, marks + sample.in_frame(), n_blocks);
  paint(sample, placed(sample, context, number(1, 1), number(1, 2)), n_blocks + 1, marks);
  const Block size = target_size(sample, number, parameters + 1);
  for (int32_t i = n_blocks - 1; i >= 0; --i) {
    paint(sample, target_at(sample, number, size, i), i, marks);
  }
}

void mark_target_block(const Sample& sample, int32_t* marks) {
  const int64_t i = sample.parameters[0];
  const Sample::Fours number(sample, 3 + i);
  const Block size = target_size(sample, number, sample.parameters + 1);
  std::fill(marks, marks + sample.in_frame(), 0);
  paint(sample, target_at(sample, number, size, i), 1, marks);
}

void mark_running_cell(const Sample& sample, int32_t* marks) {
  const int64_t first = uniform(sample.numbers(1)[0], 4);
  for (int64_t t = 0; t < sample.frames; ++t) {
    for (int64_t y = 0; y < sample.height; ++y) {
      const auto of_row = static_cast<int32_t>(first + t + 2 * (y & 1));
      for (int64_t x = 0; x < sample.width; ++x) *marks++ = (of_row + static_cast<int>(x & 1)) & 3;
    }
  }
}

// Bounds of parameters keep marks below kMaxMark and what is painted inside the grid.
struct Bounds {
  int64_t least, most;
};

struct Structure {
  const char* name;
  bool repeated;  // over T; marks are then those of one frame
  void (*mark)(const Sample& sample, int32_t* marks);
  std::vector<Bounds> bounds;  // of each parameter
};

Structure structure_of(const std::string& name, const std::vector<int64_t>& grid) {
  const int64_t height = grid[1], width = grid[2], in_frame = height * width;
  const Bounds count{0, kMaxTokens}, area{1, in_frame}, aspect{1, 1 << 20};
  const Structure all[] = {
      {"grid", true, mark_lattice, {{1, height}, {1, width}}},
      {"block", true, mark_blocks, {}},
      {"inverse_block", true, mark_inverse_blocks, {{1, kMaxTokens}, {1, 2 * in_frame}}},
      {"time_frequency", true, mark_time_frequency, {{0, height}, {0, width}}},
      {"bands", true, mark_bands, {{0, kNBands}, {0, kNBands}, {1, height}, {1, width}}},
      {"multi_block",
       true,
       mark_multi_block,
       {{1, kMaxTargetBlocks}, area, area, aspect, aspect, area, area}},
      {"target_block",
       true,
       mark_target_block,
       {{0, kMaxTargetBlocks - 1}, area, area, aspect, aspect}},
      {"frames", false, mark_frames, {count}},
      {"running_cell", false, mark_running_cell, {}},
  };
  for (const Structure& structure : all) {
    if (name == structure.name) return structure;
  }
  refuse("structure must be one of STRUCTURES, got ", name);
}

void check_parameters(const Structure& structure, const std::vector<int64_t>& parameters) {
  SMNM_CHECK(parameters.size() == structure.bounds.size(), "parameters of ", structure.name,
             " must be ", structure.bounds.size(), " ints");
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto [least, most] = structure.bounds[i];
    SMNM_CHECK(parameters[i] >= least && parameters[i] <= most, "parameters[", i, "] of ",
               structure.name, " must be in [", least, ", ", most, "]");
  }
  if (structure.mark == mark_multi_block || structure.mark == mark_target_block) {
    for (size_t i = 1; i < parameters.size(); i += 2) {
      SMNM_CHECK(parameters[i] <= parameters[i + 1], "parameters[", i, "] of ", structure.name,
                 " must be at most the next");
    }
  }
  SMNM_CHECK(structure.mark != mark_bands || parameters[0] + parameters[1] > 0,
             "parameters of bands must give at least one band");
}

// Makes one row after the other, with memory of its own.
class MaskMaker {
 public:
  MaskMaker(const Structure& structure, Sample sample, int64_t seed, int64_t n_keep)
      : structure_(structure), sample_(sample), seed_(seed), n_keep_(n_keep) {
    frames_ = structure.repeated ? sample.frames : 1;
    places_ = sample.in_frame() * sample.frames / frames_;
    keys_.resize(places_);
  }

  // `valid` and `visible` are those of the row's tokens.
  void make(const MaskTensors& out, int64_t row, int64_t id, const bool* valid, bool* visible) {
    sample_.id = id;
    structure_.mark(sample_, keys_.data());
    for_each_word(seed_, kNoise, id, places_, [&](int64_t place, uint32_t word) {
      keys_[place] = keys_[place] << kWhiteBits | static_cast<int32_t>(number_of_word(word));
    });
    if (valid == nullptr) {
      kernels().threshold_ints(keys_.data(), places_, n_keep_ / frames_, visible);
      write_row(out, row, visible, frames_);
      return;
    }
    if (frames_ == 1) {
      for (int64_t i = 0; i < places_; ++i) keys_[i] = valid[i] ? keys_[i] : -1;
      kernels().threshold_ints(keys_.data(), places_, n_keep_, visible);
    } else {
      threshold_tokens(valid, visible);
    }
    write_row(out, row, visible);
  }

 private:
  // The frames of one place come one after the other.
  void threshold_tokens(const bool* valid, bool* visible) {
    const int64_t n = places_ * frames_;
    long_keys_.resize(n);
    for (int64_t token = 0; token < n; ++token) {
      const int64_t place = token % places_;
      long_keys_[token] = valid[token] ? int64_t{keys_[place]} << 31 | (places_ - 1 - place) : -1;
    }
    kernels().threshold_longs(long_keys_.data(), n, n_keep_, visible);
  }

  const Structure& structure_;
  Sample sample_;
  int64_t seed_, n_keep_, frames_, places_;
  std::vector<int32_t> keys_;
  Numbers long_keys_;
};

std::tuple<Tensor, Tensor, Tensor> structure_masks(
    const Tensor& sample_ids, const std::optional<Tensor>& seed_tensor, int64_t seed,
    const std::optional<Tensor>& valid, const std::vector<int64_t>& grid, const std::string& name,
    const std::vector<int64_t>& parameters, int64_t n_keep) {
  const Tensor ids = parse_sample_ids(sample_ids);
  check_grid(grid);
  const Structure structure = structure_of(name, grid);
  check_parameters(structure, parameters);
  const int64_t n_tokens = grid[0] * grid[1] * grid[2];
  Tensor held = ids;
  const bool* valid_rows = parse_valid(valid, ids.numel(), n_tokens, held);
  check_enough_valid(valid_rows, ids.numel(), n_tokens, n_keep);
  check_n_keep(n_keep, n_tokens, structure.repeated && !valid ? grid[0] : 1);
  const MaskTensors out(ids, ids.numel(), n_tokens, n_keep);
  const int64_t value = seed_value(seed_tensor, seed);
  const Sample sample{grid[0], grid[1], grid[2], parameters.data(), value ^ kStructureSeed, 0};
  for_each_row(ids.numel(), n_tokens, [&]() -> RowBody {
    const auto own = std::make_shared<MaskMaker>(structure, sample, value, n_keep);
    return [&, own](int64_t row) {
      const bool* valid_row = valid_rows == nullptr ? nullptr : valid_rows + row * n_tokens;
      own->make(out, row, int64_data(ids)[row], valid_row, visible_row(out, row));
    };
  });
  return out.tuple();
}

}  // namespace
}  // namespace smnm

STABLE_TORCH_LIBRARY_IMPL(smnm, CPU, m) {
  m.impl("structure_masks", TORCH_BOX(&smnm::structure_masks));
}
