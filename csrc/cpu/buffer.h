// Scratch memory that is not initialised, and in huge pages if it is large. With small pages, a
// call on a large grid spends as long on page faults and address translation as on its work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace smnm {

constexpr size_t kHugePage = 1 << 21;

template <class T>
struct ScratchAllocator {
  typedef T value_type;

  ScratchAllocator() = default;
  template <class U>
  ScratchAllocator(const ScratchAllocator<U>&) {}

  T* allocate(size_t n) {
    const size_t bytes = n * sizeof(T);
    void* memory = nullptr;
#if defined(__linux__)
    if (bytes >= kHugePage) {
      memory = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
      // It is advice: the system may refuse it.
      if (memory != nullptr) madvise(memory, bytes, MADV_HUGEPAGE);
    }
#endif
    if (memory == nullptr) memory = std::malloc(bytes);
    if (memory == nullptr && bytes > 0) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }

  // A vector calls this for elements without a value, and it leaves them uninitialised.
  template <class U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <class U, class... Values>
  void construct(U* at, Values&&... values) {
    ::new (static_cast<void*>(at)) U(std::forward<Values>(values)...);
  }

  template <class U>
  bool operator==(const ScratchAllocator<U>&) const {
    return true;
  }
  template <class U>
  bool operator!=(const ScratchAllocator<U>&) const {
    return false;
  }
};

template <class T>
using Buffer = std::vector<T, ScratchAllocator<T>>;

}  // namespace smnm
