#include "workers.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace smnm {
namespace {

// Work that is expected to take less is done by the caller: to wake a thread takes some tens of
// microseconds.
constexpr int64_t kWorthNanoseconds = 100'000;
// About so long takes a piece.
constexpr int64_t kPieceNanoseconds = 20'000;
// So long a thread that has nothing to do looks out for work before it goes to sleep, and the
// caller for the end of the others' pieces. It lets other threads go first.
constexpr int64_t kLookOutNanoseconds = 200'000;

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Whether it became true soon.
template <class Condition>
bool soon(const Condition& condition) {
  const int64_t end = nanoseconds() + kLookOutNanoseconds;
  do {
    for (int look = 0; look < 50; ++look) {
      if (condition()) return true;
    }
    std::this_thread::yield();
  } while (nanoseconds() < end);
  return false;
}

// The rows of one call that are left, for several threads.
class Rows {
 public:
  Rows(int64_t first, int64_t n, int64_t piece, const std::function<RowBody()>& begin)
      : next_(first), n_(n), piece_(piece), left_(n - first), begin_(begin) {}

  // Takes pieces until none is left.
  void work(const RowBody* own) {
    RowBody body;
    for (;;) {
      const int64_t first = next_.fetch_add(piece_);
      if (first >= n_) return;
      const int64_t end = std::min(n_, first + piece_);
      try {
        if (own == nullptr && !body) body = begin_();
        for (int64_t row = first; row < end && !failed_.load(std::memory_order_relaxed); ++row) {
          own != nullptr ? (*own)(row) : body(row);
        }
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
      if (left_.fetch_sub(end - first) == end - first) {
        const std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_all();
      }
    }
  }

  void wait() {
    const auto finished = [&] { return left_.load(std::memory_order_acquire) == 0; };
    if (!soon(finished)) {
      std::unique_lock<std::mutex> lock(mutex_);
      finished_.wait(lock, finished);
    }
    if (failed_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<int64_t> next_;
  const int64_t n_, piece_;
  std::atomic<int64_t> left_;
  const std::function<RowBody()>& begin_;  // used only while a piece is taken
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable finished_;
};

// The threads of the process. They are never ended: the process's end ends them.
class Workers {
 public:
  // Whether the rows were given to others; not, where they are at another caller's rows.
  bool offer(const std::shared_ptr<Rows>& rows, int64_t helpers) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (offered_ != nullptr) return false;
      for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
      offered_ = rows;
      wanted_ = helpers;
    }
    if (helpers == 1) {
      posted_.notify_one();
    } else {
      posted_.notify_all();
    }
    return true;
  }

  void withdraw() {
    const std::lock_guard<std::mutex> lock(mutex_);
    offered_ = nullptr;
    wanted_ = 0;
  }

 private:
  void serve() {
    for (;;) {
      soon([&] { return wanted_ > 0; });
      std::unique_lock<std::mutex> lock(mutex_);
      posted_.wait(lock, [&] { return wanted_ > 0; });
      --wanted_;
      std::shared_ptr<Rows> rows = offered_;
      lock.unlock();
      rows->work(nullptr);
    }
  }

  std::mutex mutex_;
  std::condition_variable posted_;
  std::shared_ptr<Rows> offered_;
  std::atomic<int64_t> wanted_{0};  // threads that shall take part
  int64_t threads_ = 0;
};

std::atomic<Workers*> of_process{nullptr};

Workers& workers() {
  static const bool once = [] {
    of_process = new Workers;
    // A child process has none of the threads.
    pthread_atfork(nullptr, nullptr, [] { of_process = new Workers; });
    return true;
  }();
  (void)once;
  return *of_process;
}

}  // namespace

void for_each_row(int64_t n, int64_t threads, const std::function<RowBody()>& begin) {
  if (n == 0) return;
  const RowBody body = begin();
  int64_t row = 0;
  const int64_t start = nanoseconds();
  while (row < n) {
    body(row++);
    if (threads == 1 || n - row < 2) continue;
    const int64_t per_row = std::max<int64_t>(1, (nanoseconds() - start) / row);
    if (per_row * (n - row) < kWorthNanoseconds) continue;
    const int64_t piece = std::max<int64_t>(1, kPieceNanoseconds / per_row);
    const auto rows = std::make_shared<Rows>(row, n, piece, begin);
    const int64_t helpers = std::min(threads - 1, (n - row - 1) / piece);
    const bool offered = helpers > 0 && workers().offer(rows, helpers);
    rows->work(&body);
    if (offered) workers().withdraw();
    rows->wait();
    return;
  }
}

}  // namespace smnm
