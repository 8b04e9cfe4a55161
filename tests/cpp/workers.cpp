// for_each_row: every row once, from several callers at once, with exceptions, and in a child
// process. Built with ThreadSanitizer by tests/test_workers.py. Prints "ok".
#include "../../csrc/cpu/workers.cpp"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kThreads = 4;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

void work_for(int64_t microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < end) {
  }
}

// Rows of so many microseconds; each writes its own element, without a lock.
void every_row_is_called_once(int64_t n, int64_t microseconds) {
  std::vector<int64_t> calls(n);
  std::atomic<int64_t> bodies{0};
  smnm::for_each_row(n, kThreads, [&]() -> smnm::RowBody {
    ++bodies;
    // Scratch of one thread: two of them in it at once would be a race.
    return [&, scratch = std::make_shared<int64_t>(0)](int64_t row) {
      *scratch += row;
      work_for(microseconds);
      ++calls[row];
    };
  });
  for (const int64_t count : calls) check(count == 1, "every row once");
  check(bodies <= kThreads, "a body for each thread");
  check(n != 1 || bodies == 1, "a single row stays with the caller");
}

void several_threads_take_part() {
  std::vector<std::thread::id> who(400);
  smnm::for_each_row(400, kThreads, [&]() -> smnm::RowBody {
    return [&](int64_t row) {
      work_for(50);
      who[row] = std::this_thread::get_id();
    };
  });
  bool others = false;
  for (const std::thread::id id : who) others = others || id != std::this_thread::get_id();
  check(others, "other threads take rows of long work");
}

void an_exception_comes_back(int64_t failing) {
  std::atomic<int64_t> done{0};
  try {
    smnm::for_each_row(300, kThreads, [&]() -> smnm::RowBody {
      return [&](int64_t row) {
        work_for(20);
        if (row == failing) throw std::runtime_error("row");
        ++done;
      };
    });
    check(false, "an exception is thrown");
  } catch (const std::runtime_error&) {
    check(done < 300, "the failing row is not done");
  }
}

void all() {
  for (const int64_t n : {0, 1, 2, 3, 17, 1000}) {
    for (const int64_t microseconds : {0, 1, 30}) every_row_is_called_once(n, microseconds);
  }
  for (const int64_t row : {0, 1, 150, 299}) an_exception_comes_back(row);
}

}  // namespace

int main() {
  several_threads_take_part();
  all();
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(all);
  for (std::thread& caller : callers) caller.join();
  const pid_t child = fork();
  if (child == 0) {
    several_threads_take_part();
    all();
    _exit(0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child process has threads of its own");
  std::printf("ok\n");
}
