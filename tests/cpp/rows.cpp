// run_rows: every row once, from several callers at once, with exceptions; and when a thread
// was late, the caller works alone for a while. Built with ThreadSanitizer by tests/test_rows.py.
// Prints "ok".
#include "../../csrc/cpu/rows.cpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kThreads = 4;
std::atomic<int64_t> shared{0};   // calls of on_threads()
std::atomic<int64_t> late_us{0};  // how late the last of its threads begins

void sleep_for(int64_t microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

void on_threads(int64_t n, const std::function<void(int64_t)>& work) {
  ++shared;
  std::vector<std::exception_ptr> errors(n);
  const auto guarded = [&](int64_t thread) {
    if (thread == n - 1) sleep_for(late_us);
    try {
      work(thread);
    } catch (...) {
      errors[thread] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t thread = 1; thread < n; ++thread) others.emplace_back(guarded, thread);
  guarded(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// Rows of so many microseconds; each writes its own element, without a lock.
void every_row_is_called_once(int64_t n, int64_t threads, int64_t microseconds) {
  std::vector<int64_t> calls(n);
  std::atomic<int64_t> bodies{0};
  smnm::run_rows(n, threads, n % 2 == 0, on_threads, [&]() -> smnm::RowBody {
    ++bodies;
    // Scratch of one thread: two of them in it at once would be a race.
    return [&, scratch = std::make_shared<int64_t>(0)](int64_t row) {
      *scratch += row;
      if (microseconds > 0) sleep_for(microseconds);
      ++calls[row];
    };
  });
  for (const int64_t count : calls) check(count == 1, "every row once");
  check(bodies <= threads, "a body for each thread");
  check(n != 1 || bodies == 1, "a single row stays with the caller");
}

void an_exception_comes_back(int64_t failing) {
  try {
    smnm::run_rows(100, kThreads, false, on_threads, [&]() -> smnm::RowBody {
      return [&](int64_t row) {
        sleep_for(20);
        if (row == failing) throw std::runtime_error("row");
      };
    });
    check(false, "an exception is thrown");
  } catch (const std::runtime_error&) {
  }
}

void all() {
  for (const int64_t n : {0, 1, 2, 3, 17, 200}) {
    for (const int64_t microseconds : {0, 30}) {
      for (const int64_t threads : {1, 2, 4}) every_row_is_called_once(n, threads, microseconds);
    }
  }
  for (const int64_t row : {0, 1, 50, 99}) an_exception_comes_back(row);
}

// Whether long work is shared out.
bool shares() {
  const int64_t before = shared;
  every_row_is_called_once(10, kThreads, 50);
  return shared > before;
}

void a_late_thread_is_left_alone() {
  smnm::alone_until = 0;
  late_us = 0;
  check(shares(), "long work is shared out");
  late_us = 50'000;
  smnm::alone_until = 0;
  check(shares(), "a thread is late");
  const int64_t spell = smnm::next_spell;
  check(smnm::alone_until > 0 && spell > smnm::kFirstSpell, "that is noted");
  smnm::alone_until = smnm::now() + 1'000'000'000;
  check(!shares(), "then the caller works alone");
  smnm::alone_until = 0;
  check(shares(), "it tries again");
  check(smnm::next_spell > spell, "late again: for longer");
  late_us = 0;
  smnm::alone_until = 0;
  const int64_t before = smnm::next_spell, calls = shared;
  smnm::run_rows(2, kThreads, false, on_threads,
                 []() -> smnm::RowBody { return [](int64_t) { sleep_for(300); }; });
  check(shared == calls && smnm::next_spell == before, "a row that is left is not shared");
}

}  // namespace

int main() {
  a_late_thread_is_left_alone();
  late_us = 0;
  for (int i = 0; i < 3; ++i) {
    smnm::alone_until = 0;
    all();
    std::vector<std::thread> callers;
    for (int j = 0; j < 3; ++j) callers.emplace_back(all);
    for (std::thread& caller : callers) caller.join();
  }
  std::printf("ok\n");
}
