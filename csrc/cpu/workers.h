// Rows shared out among threads that sleep while there is nothing to do.
//
// torch's own parallel loops end when all threads have come to their end, also those that had
// nothing to do, and their threads spin for a while in between. Where other processes hold the
// cores, both cost milliseconds: a thread that was put aside comes back after the scheduler's next
// slices. Here the caller starts at once and wakes others only for work that is worth it; rows are
// taken in small pieces; and nobody waits for a thread that has taken none.
#pragma once

#include <cstdint>
#include <functional>

namespace smnm {

using RowBody = std::function<void(int64_t row)>;

// Calls a body with every row below n, on up to `threads` threads. Each thread that takes part has
// a body of its own from begin(), with its own scratch memory. An exception of a body is thrown
// here when all have stopped.
void for_each_row(int64_t n, int64_t threads, const std::function<RowBody()>& begin);

}  // namespace smnm
