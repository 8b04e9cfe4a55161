#include "rows.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

namespace smnm {
namespace {

// In nanoseconds. Work that is expected to take less is done by the caller.
constexpr int64_t kWorthSharing = 100'000;
// About so long takes a piece.
constexpr int64_t kPiece = 20'000;
// So much more is no loss.
constexpr int64_t kSlack = 50'000;
// When sharing has taken longer than the caller alone would have, it works alone for so long. The
// time grows sixteenfold with each loss and halves with each gain.
constexpr int64_t kFirstSpell = 10'000'000, kLongestSpell = 10'000'000'000;

std::atomic<int64_t> alone_until{0}, next_spell{kFirstSpell};

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void note(bool gained) {
  const int64_t spell = next_spell;
  if (gained) {
    next_spell = std::max(spell / 2, kFirstSpell);
  } else {
    alone_until = now() + spell;
    next_spell = std::min(16 * spell, kLongestSpell);
  }
}

// Does rows `first` to n - 1, of which each takes about `per_row`. The caller has a body already.
void share_out(int64_t first, int64_t n, int64_t per_row, int64_t threads, Parallel parallel,
               const RowBody& callers, const std::function<RowBody()>& begin) {
  const int64_t rows_of_piece = std::max<int64_t>(1, kPiece / per_row);
  const int64_t n_pieces = (n - first - 1) / rows_of_piece + 1;
  if (n_pieces == 1) {
    for (int64_t row = first; row < n; ++row) callers(row);
    return;
  }
  std::atomic<int64_t> next{first};
  const int64_t start = now();
  int64_t fastest = std::numeric_limits<int64_t>::max();  // time of a row
  parallel(std::min(threads, n_pieces), [&](int64_t thread) {
    RowBody own;
    for (;;) {
      const int64_t piece = next.fetch_add(rows_of_piece);
      if (piece >= n) break;
      if (thread != 0 && !own) own = begin();
      const RowBody& body = thread == 0 ? callers : own;
      const int64_t end = std::min(n, piece + rows_of_piece), piece_start = now();
      for (int64_t row = piece; row < end; ++row) body(row);
      if (thread == 0) fastest = std::min(fastest, (now() - piece_start) / (end - piece));
    }
  });
  // The caller's fastest piece tells what rows take, also if it was put aside meanwhile itself.
  if (fastest < std::numeric_limits<int64_t>::max()) per_row = std::max(per_row, fastest);
  note(now() - start <= kSlack + per_row * (n - first));
}

}  // namespace

void run_rows(int64_t n, int64_t threads, bool heavy, Parallel parallel,
              const std::function<RowBody()>& begin) {
  if (n == 0) return;
  const RowBody body = begin();
  const int64_t start = now();
  if (heavy && threads > 1 && start >= alone_until) {
    share_out(0, n, kWorthSharing, threads, parallel, body, begin);
    return;
  }
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
