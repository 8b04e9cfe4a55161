// The rounds of csrc/common/rbn_rounds.h on real threads with real barriers, for ThreadSanitizer to
// watch: what two threads touch without a barrier between is a race here as on a GPU. Prints the
// masks.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "../../csrc/common/rbn_thread_block.h"

namespace {

// Two warps of four lanes.
constexpr int kBits = 3, kWarpBits = 2, kThreads = 1 << kBits;

struct Barrier {
  pthread_barrier_t barrier;
  explicit Barrier(int count) { pthread_barrier_init(&barrier, nullptr, count); }
  ~Barrier() { pthread_barrier_destroy(&barrier); }
  void wait() { pthread_barrier_wait(&barrier); }
};

// What the threads share beside the memory of a bank.
struct Shared {
  std::vector<std::unique_ptr<Barrier>> barriers[kBits + 1];  // of groups of 2^bits threads
  int64_t values[kThreads];                                   // to exchange in a group

  Shared() {
    for (int bits = 0; bits <= kBits; ++bits) {
      for (int i = 0; i < kThreads >> bits; ++i) {
        barriers[bits].push_back(std::make_unique<Barrier>(1 << bits));
      }
    }
  }
};

template <class T>
struct ThreadLanes {
  T value;
  T& operator[](int32_t) { return value; }
  const T& operator[](int32_t) const { return value; }
};

class ThreadGroup {
 public:
  template <class T>
  using Lanes = ThreadLanes<T>;

  ThreadGroup(Shared& shared, int32_t thread, int32_t bits)
      : shared_(shared), thread_(thread), bits_(bits), lane_(thread & (size() - 1)) {}

  int32_t size() const { return 1 << bits_; }
  void barrier() { shared_.barriers[bits_][thread_ >> bits_]->wait(); }

  template <class Body>
  void each(const Body& body) {
    body(lane_);
  }

  template <class Body>
  auto map(const Body& body) {
    return ThreadLanes<decltype(body(0))>{body(lane_)};
  }

  template <class T>
  T min(const ThreadLanes<T>& of) {
    T least = of.value;
    for (const int64_t value : exchanged(of.value)) least = value < least ? value : least;
    return least;
  }

  int32_t sum(const ThreadLanes<int32_t>& of) {
    int64_t sum = 0;
    for (const int64_t value : exchanged(of.value)) sum += value;
    return static_cast<int32_t>(sum);
  }

  template <int kRows>
  void make_prefix_sums(ThreadLanes<int32_t> (&rows)[kRows]) {
    for (auto& row : rows) {
      const std::vector<int64_t> values = exchanged(row.value);
      for (int32_t lane = 0; lane < lane_; ++lane) row.value += values[lane];
    }
  }

  uint32_t ballot(const ThreadLanes<bool>& of) {
    const std::vector<int64_t> values = exchanged(of.value);
    uint32_t bits = 0;
    for (int32_t lane = 0; lane < size(); ++lane)
      bits |= static_cast<uint32_t>(values[lane]) << lane;
    return bits;
  }

  int32_t at(const ThreadLanes<int32_t>& of, int32_t lane) {
    return static_cast<int32_t>(exchanged(of.value)[lane]);
  }

 private:
  std::vector<int64_t> exchanged(int64_t value) {
    shared_.values[thread_] = value;
    barrier();
    const int64_t* first = shared_.values + thread_ - lane_;
    const std::vector<int64_t> all(first, first + size());
    barrier();
    return all;
  }

  Shared& shared_;
  int32_t thread_, bits_, lane_;
};

class ThreadBlock {
 public:
  ThreadBlock(Shared& shared, int32_t thread) : shared_(shared), thread_(thread) {}

  int32_t size() const { return kThreads; }
  int32_t size_bits() const { return kBits; }
  int32_t max_group_bits() const { return kWarpBits; }
  void barrier() { shared_.barriers[kBits][0]->wait(); }

  template <class Body>
  void for_each(int32_t n, const Body& body) {
    for (int32_t i = thread_; i < n; i += kThreads) body(i);
  }

  template <class Body>
  void for_each_apart(int32_t n, const Body& body) {
    for (int32_t i = kThreads - 1 - thread_; i < n; i += kThreads) body(i);
  }

  template <class Body>
  void for_each_group(int32_t n, int32_t bits, const Body& body) {
    ThreadGroup group(shared_, thread_, bits);
    for (int32_t i = thread_ >> bits; i < n; i += kThreads >> bits) body(group, i);
  }

  template <class Body>
  void once(const Body& body) {
    if (thread_ == 0) body();
  }

  void zero(void* from, void* to) {
    for (char* at = static_cast<char*>(from) + 16 * thread_; at < to; at += 16 * kThreads) {
      std::memset(at, 0, 16);
    }
  }

  template <class T>
  T add(T* to, T value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
  }
  void set_bits(uint32_t* to, uint32_t bits) { __atomic_fetch_or(to, bits, __ATOMIC_RELAXED); }
  void lower(int32_t* to, int32_t value) {
    replace(to, value, [&](int32_t was) { return value < was; });
  }
  void raise(int32_t* to, int32_t value) {
    replace(to, value, [&](int32_t was) { return value > was; });
  }

 private:
  template <class Test>
  void replace(int32_t* to, int32_t value, const Test& test) {
    int32_t was = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (test(was) && !__atomic_compare_exchange_n(to, &was, value, true, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
    }
  }

  Shared& shared_;
  int32_t thread_;
};

}  // namespace

// Arguments: height width n_keep n_candidates random_ties seed batch, then the thousandths of the
// four weights; sample ids count up from 0.
int main(int, char** arguments) {
  const auto argument = [&](int i) { return std::atoll(arguments[i]); };
  const int64_t height = argument(1), width = argument(2), n_keep = argument(3);
  const int64_t n_candidates = argument(4), seed = argument(6), batch = argument(7);
  const int64_t weights[] = {argument(8), argument(9), argument(10), argument(11)};
  const int64_t windows[] = {3, 5}, n = height * width;
  const smnm::RoundsShape shape =
      smnm::rounds_shape(smnm::rbn_lines(height, width, windows, 2, weights), n, width,
                         n_candidates, n_keep, windows, 2, argument(5) != 0);
  const std::unique_ptr<char[]> memory(new char[shape.bytes + 16]);
  auto* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.get()) + 15) & -16);

  std::vector<int64_t> ids(batch), ids_keep(batch * n_keep), ids_restore(batch * n), order(n);
  std::unique_ptr<bool[]> visible(new bool[batch * n]), bank(new bool[n_candidates * n]);
  for (int64_t i = 0; i < batch; ++i) ids[i] = i;
  for (int64_t i = 0; i < n; ++i) order[i] = n - 1 - i;
  const smnm::MaskRows rows = {ids.data(),         batch,  visible.get(), ids_keep.data(),
                               ids_restore.data(), nullptr};
  Shared shared;
  std::vector<std::thread> threads;
  for (int32_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      ThreadBlock block(shared, thread);
      smnm::with_variant(shape, [&](auto variant) {
        smnm::with_pairs(shape, [&](auto pair) {
          const auto state = smnm::rounds_state<decltype(pair)>(shape, aligned);
          for (int64_t row = 0; row < batch; ++row) {
            smnm::run_masks_row<decltype(variant)>(block, shape, state, rows, row, seed);
            block.barrier();
          }
          smnm::run_order<smnm::AnyVariant>(block, shape, state, order.data(), seed, 0, bank.get());
        });
      });
    });
  }
  for (std::thread& thread : threads) thread.join();

  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t i = 0; i < n; ++i) std::printf("%d ", visible[row * n + i]);
    for (int64_t i = 0; i < n_keep; ++i) std::printf("%d ", int(ids_keep[row * n_keep + i]));
    for (int64_t i = 0; i < n; ++i) std::printf("%d ", int(ids_restore[row * n + i]));
  }
  for (int64_t i = 0; i < n_candidates * n; ++i) std::printf("%d ", bank[i]);
}
