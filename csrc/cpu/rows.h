// The rows of a call, shared out among threads where that is worth it.
//
// A parallel loop ends when all of its threads have come to their end. Where other processes hold
// the cores, a thread comes late by a slice of the scheduler, which is some milliseconds, and masks
// take less. So short work stays with the caller; rows are taken in small pieces, so that a thread
// that comes late finds nothing left to do; and when waiting for one has cost more than sharing
// gained, the caller works alone for a while.
#pragma once

#include <cstdint>
#include <functional>

namespace smnm {

using RowBody = std::function<void(int64_t row)>;
// Calls work(0) on this thread and work(1) to work(threads - 1), each on any; returns when all have
// returned.
using Parallel = void (*)(int64_t threads, const std::function<void(int64_t thread)>& work);

// Calls a body with every row below n, on up to `threads` threads. Each thread that takes part has
// a body of its own from begin(), with its own scratch memory. How long rows take is seen from the
// first, which the caller does alone, unless a row is known to be `heavy`: a tenth of a millisecond
// or more.
void run_rows(int64_t n, int64_t threads, bool heavy, Parallel parallel,
              const std::function<RowBody()>& begin);

}  // namespace smnm
