// The rounds of csrc/rbn_rounds.h on real threads with real barriers, for ThreadSanitizer to watch:
// what two threads touch without a barrier between is a race here as on a GPU. Prints the masks.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "../csrc/rbn_rounds_ops.h"

namespace {

constexpr int kThreads = 4, kFew = 2;

struct Barrier {
  pthread_barrier_t barrier;
  explicit Barrier(int count) { pthread_barrier_init(&barrier, nullptr, count); }
  ~Barrier() { pthread_barrier_destroy(&barrier); }
};

struct ThreadBlock {
  int32_t index, count;
  Barrier *all, *some;

  int32_t size() const { return count; }
  void barrier() { pthread_barrier_wait(&all->barrier); }

  template <class Body>
  void for_each(int32_t n, const Body& body) {
    for (int32_t i = index; i < n; i += count) body(i);
    barrier();
  }

  template <class Body>
  void for_each_lane(int32_t n, int32_t lane_bits, const Body& body) {
    const int32_t lane = index & ((1 << lane_bits) - 1);
    for (int32_t i = index >> lane_bits; i < n; i += count >> lane_bits) body(i, lane);
    barrier();
  }

  template <class Body>
  void few(const Body& body) {
    if (index < kFew) {
      ThreadBlock threads{index, kFew, some, nullptr};
      body(threads);
    }
    barrier();
  }

  int32_t add(int32_t* to, int32_t value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
  }
  void set_bits(uint32_t* to, uint32_t bits) { __atomic_fetch_or(to, bits, __ATOMIC_RELAXED); }
  void lower(int32_t* to, int32_t value) {
    int32_t was = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (value < was && !__atomic_compare_exchange_n(to, &was, value, true, __ATOMIC_RELAXED,
                                                       __ATOMIC_RELAXED)) {
    }
  }
};

}  // namespace

// Arguments: height width n_keep n_candidates random_ties seed batch; sample ids count up from 0.
int main(int, char** arguments) {
  const auto argument = [&](int i) { return std::atoll(arguments[i]); };
  const int64_t height = argument(1), width = argument(2), n_keep = argument(3);
  const int64_t n_candidates = argument(4), seed = argument(6), batch = argument(7);
  const int64_t windows[] = {3, 5}, weights[] = {400, 400, 100, 100}, n = height * width;
  const smnm::RoundsShape shape =
      smnm::rounds_shape(smnm::rbn_lines(height, width, windows, 2, weights), n, width,
                         n_candidates, n_keep, windows, 2, argument(5) != 0);
  const std::unique_ptr<char[]> memory(new char[smnm::rounds_bytes(shape) + 16]);
  auto* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.get()) + 15) & -16);
  const smnm::RoundsState state = smnm::rounds_state(shape, aligned);

  std::vector<int64_t> ids(batch), ids_keep(batch * n_keep), ids_restore(batch * n), order(n);
  std::unique_ptr<bool[]> visible(new bool[batch * n]), bank(new bool[n_candidates * n]);
  for (int64_t i = 0; i < batch; ++i) ids[i] = i;
  for (int64_t i = 0; i < n; ++i) order[i] = n - 1 - i;
  const smnm::MaskRows rows = {ids.data(), batch, visible.get(), ids_keep.data(),
                               ids_restore.data()};
  Barrier all(kThreads), some(kFew);
  std::vector<std::thread> threads;
  for (int32_t index = 0; index < kThreads; ++index) {
    threads.emplace_back([&, index] {
      ThreadBlock block{index, kThreads, &all, &some};
      for (int64_t row = 0; row < batch; ++row) {
        run_masks_row(block, shape, state, rows, row, seed);
        block.barrier();
      }
      run_order(block, shape, state, order.data(), seed, 0, bank.get());
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
