#include "rows.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace smnm {
namespace {

// In nanoseconds. Work that is expected to take less is done by the caller.
constexpr int64_t kWorthSharing = 100'000;
// About so long takes a piece.
constexpr int64_t kPiece = 20'000;
// The other threads were late if the caller had to wait for so long, or for two pieces.
constexpr int64_t kLate = 300'000;
// For so long the caller then works alone. The time doubles if they are late again.
constexpr int64_t kFirstSpell = 500'000'000, kLongestSpell = 30'000'000'000;

std::atomic<int64_t> alone_until{0}, next_spell{kFirstSpell};

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void note_wait(int64_t waited, int64_t piece) {
  if (waited <= std::max(kLate, 2 * piece)) {
    next_spell = kFirstSpell;
    return;
  }
  const int64_t spell = next_spell;
  alone_until = now() + spell;
  next_spell = std::min(2 * spell, kLongestSpell);
}

// Does rows `first` to n - 1, of which each takes `per_row`. The caller has a body already.
void share_out(int64_t first, int64_t n, int64_t per_row, int64_t threads, Parallel parallel,
               const RowBody& callers, const std::function<RowBody()>& begin) {
  const int64_t rows_of_piece = std::max<int64_t>(1, kPiece / per_row);
  const int64_t n_pieces = (n - first - 1) / rows_of_piece + 1;
  std::atomic<int64_t> next{first};
  int64_t caller_ended = 0;
  parallel(std::min(threads, n_pieces), [&](int64_t thread) {
    RowBody own;
    for (;;) {
      const int64_t piece = next.fetch_add(rows_of_piece);
      if (piece >= n) break;
      if (thread != 0 && !own) own = begin();
      const RowBody& body = thread == 0 ? callers : own;
      for (int64_t row = piece; row < std::min(n, piece + rows_of_piece); ++row) body(row);
    }
    if (thread == 0) caller_ended = now();
  });
  note_wait(now() - caller_ended, rows_of_piece * per_row);
}

}  // namespace

void run_rows(int64_t n, int64_t threads, Parallel parallel,
              const std::function<RowBody()>& begin) {
  if (n == 0) return;
  const RowBody body = begin();
  const int64_t start = now();
  for (int64_t row = 0; row < n;) {
    body(row++);
    if (threads == 1 || row == n) continue;
    const int64_t time = now(), per_row = std::max<int64_t>(1, (time - start) / row);
    if (per_row * (n - row) < kWorthSharing || time < alone_until) continue;
    share_out(row, n, per_row, threads, parallel, body, begin);
    return;
  }
}

}  // namespace smnm
