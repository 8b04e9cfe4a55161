// A thread block on the CPU, as rbn_rounds.h asks for one: what its threads share out runs in an
// order drawn from a seed, so that a result that depends on the order of threads shows. Sizes of
// block and warp are drawn too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace smnm {

template <class T>
struct ShuffledLanes {
  T values[32];
  T& operator[](int32_t lane) { return values[lane]; }
  const T& operator[](int32_t lane) const { return values[lane]; }
};

class ShuffledGroup {
 public:
  template <class T>
  using Lanes = ShuffledLanes<T>;

  ShuffledGroup(int32_t bits, uint32_t random) : size_(1 << bits), random_(random) {}

  int32_t size() const { return size_; }
  void barrier() {}

  template <class Body>
  void each(const Body& body) {
    // An odd step reaches every lane once.
    random_ = random_ * 1664525 + 1013904223;
    const int32_t first = random_ >> 8, step = random_ >> 16 | 1;
    for (int32_t i = 0; i < size_; ++i) body((first + i * step) & (size_ - 1));
  }

  template <class Body>
  auto map(const Body& body) {
    ShuffledLanes<decltype(body(0))> made;
    each([&](int32_t lane) { made[lane] = body(lane); });
    return made;
  }

  template <class T>
  T min(const ShuffledLanes<T>& of) const {
    return *std::min_element(of.values, of.values + size_);
  }
  int32_t sum(const ShuffledLanes<int32_t>& of) const {
    return std::accumulate(of.values, of.values + size_, 0);
  }
  template <int kRows>
  void make_prefix_sums(ShuffledLanes<int32_t> (&rows)[kRows]) const {
    for (auto& row : rows) std::partial_sum(row.values, row.values + size_, row.values);
  }
  uint32_t ballot(const ShuffledLanes<bool>& of) const {
    uint32_t bits = 0;
    for (int32_t lane = 0; lane < size_; ++lane) bits |= uint32_t{of[lane]} << lane;
    return bits;
  }
  int32_t at(const ShuffledLanes<int32_t>& of, int32_t lane) const { return of[lane]; }

 private:
  int32_t size_;
  uint32_t random_;
};

class ShuffledBlock {
 public:
  explicit ShuffledBlock(uint64_t shuffle)
      : random_(shuffle), warp_bits_(shuffle % 6), size_((1 + shuffle / 6 % 16) << warp_bits_) {}

  int32_t size() const { return size_; }
  int32_t size_bits() const {
    int32_t bits = 0;
    while (2 << bits <= size_) ++bits;
    return bits;
  }
  int32_t max_group_bits() const { return warp_bits_; }
  void barrier() {}

  template <class Body>
  void for_each(int32_t n, const Body& body) {
    for (const int32_t i : shuffled(n)) body(i);
  }

  template <class Body>
  void for_each_apart(int32_t n, const Body& body) {
    for_each(n, body);
  }

  template <class Body>
  void for_each_group(int32_t n, int32_t bits, const Body& body) {
    for (const int32_t i : shuffled(n)) {
      ShuffledGroup group(bits, random_());
      body(group, i);
    }
  }

  void zero(void* from, void* to) {
    std::fill(static_cast<char*>(from), static_cast<char*>(to), 0);
  }

  template <class Body>
  void once(const Body& body) {
    body();
  }

  template <class T>
  T add(T* to, T value) {
    return std::exchange(*to, *to + value);
  }
  void lower(int32_t* to, int32_t value) { *to = std::min(*to, value); }
  void raise(int32_t* to, int32_t value) { *to = std::max(*to, value); }
  void set_bits(uint32_t* to, uint32_t bits) { *to |= bits; }

 private:
  std::vector<int32_t> shuffled(int32_t n) {
    std::vector<int32_t> items(std::max(n, 0));
    std::iota(items.begin(), items.end(), 0);
    std::shuffle(items.begin(), items.end(), random_);
    return items;
  }

  std::minstd_rand random_;
  int32_t warp_bits_, size_;
};

}  // namespace smnm
