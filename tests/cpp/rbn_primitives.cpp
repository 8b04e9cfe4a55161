// Checks what csrc/common/rbn_rounds.h is made of against plain loops, each for every size of a
// group, and names what differs.
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "../../csrc/common/rbn_thread_block.h"
#include "shuffled_block.h"

namespace {

int failures = 0;

template <class T>
void expect(const char* what, int64_t of, T got, T wanted) {
  if (got == wanted) return;
  ++failures;
  std::printf("%s of %lld: %lld, not %lld\n", what, static_cast<long long>(of),
              static_cast<long long>(got), static_cast<long long>(wanted));
}

void check_bits(uint32_t word) {
  int32_t n = 0;
  for (int32_t i = 0; i < 32; ++i) {
    if ((word >> i & 1) == 0) continue;
    if (n == 0) expect("lowest_bit", word, smnm::lowest_bit(word), i);
    expect("bit_after", word, smnm::bit_after(word, n), i);
    ++n;
  }
  expect("count_bits", word, smnm::count_bits(word), n);
  if (word == 0) expect("lowest_bit", word, smnm::lowest_bit(word), 32);
}

template <class Unsigned>
void check_division(Unsigned x, Unsigned by) {
  expect("quotient", static_cast<int64_t>(x), smnm::divisor(by).quotient(x), x / by);
}

void check_sample(int64_t id, int64_t other, int64_t n_candidates) {
  const int64_t windows[] = {3}, weights[] = {1, 1, 1, 1};
  const smnm::RoundsShape shape = smnm::rounds_shape(smnm::rbn_lines(1, 1, windows, 1, weights), 1,
                                                     1, n_candidates, 1, windows, 1, false);
  const smnm::RoundsSample sample(shape, id);
  const int64_t bank = smnm::rbn_bank_of(id, n_candidates);
  expect("bank", id, sample.bank, bank);
  expect("mask", id, sample.mask, smnm::rbn_mask_of(id, n_candidates));
  const bool same = smnm::rbn_bank_of(other, n_candidates) == bank;
  const uint64_t mask = sample.mask_of(other);
  expect("same bank", other, mask < static_cast<uint64_t>(n_candidates), same);
  if (same)
    expect("mask_of", other, static_cast<int64_t>(mask), smnm::rbn_mask_of(other, n_candidates));
}

void check_group(int32_t bits, std::minstd_rand& random) {
  smnm::ShuffledGroup group(bits, random());
  const int32_t size = group.size();
  std::vector<int32_t> values(size);
  for (int32_t& value : values) value = static_cast<int32_t>(random() % 7) - 3;
  const auto lanes = group.map([&](int32_t lane) { return values[lane]; });
  smnm::ShuffledLanes<int32_t> rows[2] = {lanes, lanes};
  group.make_prefix_sums(rows);
  int32_t sum = 0, least = values[0];
  uint32_t negative = 0;
  for (int32_t lane = 0; lane < size; ++lane) {
    sum += values[lane];
    least = values[lane] < least ? values[lane] : least;
    negative |= uint32_t{values[lane] < 0} << lane;
    for (const auto& row : rows) expect("prefix sum", lane, row[lane], sum);
    expect("at", lane, group.at(lanes, lane), values[lane]);
  }
  expect("sum", size, group.sum(lanes), sum);
  expect("min", size, group.min(lanes), least);
  expect("ballot", size, group.ballot(group.map([&](int32_t lane) { return lanes[lane] < 0; })),
         negative);
  const auto alike = smnm::lanes_alike(group, lanes, 3);
  for (int32_t lane = 0; lane < size; ++lane) {
    for (int32_t other = 0; other < size; ++other) {
      expect("alike", lane, (alike[lane] >> other & 1) != 0, values[lane] == values[other]);
    }
  }
}

void check_sums(int32_t n, uint64_t shuffle, std::minstd_rand& random) {
  smnm::ShuffledBlock block(shuffle);
  std::vector<int32_t> values((n + smnm::kSumsAtATime - 1) / smnm::kSumsAtATime *
                              smnm::kSumsAtATime);
  for (int32_t i = 0; i < n; ++i) values[i] = static_cast<int32_t>(random() % 5);
  const std::vector<int32_t> given = values;
  int32_t totals[smnm::kMaxWarps], sum = 0;
  smnm::sum_prefixes(block, values.data(), n, totals);
  for (int32_t i = 0; i < n; ++i) expect("block's prefix sum", i, values[i], sum += given[i]);
}

// Places for all arrays of a state, and no more.
template <class Pair>
void check_arrays() {
  int64_t n_arrays = 0;
  const auto count = [&](auto*&, int32_t) { ++n_arrays; };
  smnm::RoundsState<Pair>().each_array(smnm::RoundsShape(), count);
  expect("arrays", sizeof(Pair), n_arrays, int64_t{smnm::kArrays});
}

}  // namespace

int main() {
  check_arrays<int32_t>();
  check_arrays<int64_t>();
  std::minstd_rand random(1);
  for (int i = 0; i < 200; ++i) check_bits(static_cast<uint32_t>(random()) << i % 32);
  for (const uint32_t word : {0u, 1u, ~0u, 0x80000000u}) check_bits(word);
  for (int32_t n = 0; n <= 32; ++n) {
    expect<int64_t>("low_bits", n, smnm::low_bits(n), (int64_t{1} << n) - 1);
  }
  for (const uint64_t by : {1, 2, 3, 5, 7, 8, 641, 1000, 1023, 1024}) {
    for (const uint64_t x : {uint64_t{0}, by - 1, by, ~uint64_t{0}, ~uint64_t{0} / by * by,
                             ~uint64_t{0} / by * by - 1, uint64_t{1} << 63, uint64_t{random()}}) {
      check_division(x, by);
      check_division(static_cast<uint32_t>(x), static_cast<uint32_t>(by));
    }
    constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    for (const int64_t id : {int64_t{0}, int64_t{-1}, kLeast, kLeast + 3, kMost, kMost - 3}) {
      for (int64_t away = -6; away <= 6; ++away) {
        const auto other = static_cast<int64_t>(static_cast<uint64_t>(id) + away);
        check_sample(id, other, static_cast<int64_t>(by));
      }
    }
  }
  for (int i = 0; i < 300; ++i) check_group(i % 6, random);
  for (const int32_t n : {1, 2, 31, 32, 33, 127, 128, 129, 512, 1000, 5000}) {
    for (uint64_t shuffle = 0; shuffle < 96; ++shuffle) check_sums(n, shuffle, random);
  }
  return failures == 0 ? 0 : 1;
}
