// The Block and Group that rbn_rounds.h describes, for CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace smnm {

constexpr int32_t kWarpBits = 5;

// A value of each lane, in a register.
template <class T>
struct CudaLanes {
  T value;
  __device__ __forceinline__ T& operator[](int32_t) { return value; }
  __device__ __forceinline__ const T& operator[](int32_t) const { return value; }
};

// 2^bits neighbouring lanes of a warp. If this is more than a warp, only `each` and `size` may be
// called.
class CudaGroup {
 public:
  template <class T>
  using Lanes = CudaLanes<T>;

  __device__ __forceinline__ CudaGroup(int32_t thread, int32_t bits)
      : bits_(bits), lane_(thread & (size() - 1)), shift_(thread & (31 & ~(size() - 1))) {}

  __device__ __forceinline__ int32_t size() const { return 1 << bits_; }

  template <class Body>
  __device__ __forceinline__ void each(const Body& body) const {
    body(lane_);
  }

  template <class Body>
  __device__ __forceinline__ auto map(const Body& body) const {
    return CudaLanes<decltype(body(0))>{body(lane_)};
  }

  __device__ __forceinline__ void barrier() const { __syncwarp(members()); }

  template <class T>
  __device__ __forceinline__ T min(CudaLanes<T> of) const {
#if __CUDA_ARCH__ >= 800
    if constexpr (sizeof(T) == 4) {
      if (bits_ == kWarpBits) return __reduce_min_sync(members(), of.value);
    }
#endif
    for (int32_t step = size() / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(members(), of.value, step);
      of.value = other < of.value ? other : of.value;
    }
    return of.value;
  }

  __device__ __forceinline__ int32_t sum(CudaLanes<int32_t> of) const {
#if __CUDA_ARCH__ >= 800
    if (bits_ == kWarpBits) return __reduce_add_sync(members(), of.value);
#endif
    for (int32_t step = size() / 2; step > 0; step /= 2) {
      of.value += __shfl_xor_sync(members(), of.value, step);
    }
    return of.value;
  }

  // The rows by turns: one alone would wait for each of its shuffles.
  template <int kRows>
  __device__ __forceinline__ void make_prefix_sums(CudaLanes<int32_t> (&rows)[kRows]) const {
    for (int32_t step = 1; step < size(); step *= 2) {
      int32_t before[kRows];
      for (int row = 0; row < kRows; ++row) {
        before[row] = __shfl_up_sync(members(), rows[row].value, step, size());
      }
      for (int row = 0; row < kRows; ++row) rows[row].value += lane_ >= step ? before[row] : 0;
    }
  }

  __device__ __forceinline__ uint32_t ballot(CudaLanes<bool> of) const {
    return (__ballot_sync(members(), of.value) & members()) >> shift_;
  }

  __device__ __forceinline__ int32_t at(CudaLanes<int32_t> of, int32_t lane) const {
    return __shfl_sync(members(), of.value, lane, size());
  }

 private:
  __device__ __forceinline__ uint32_t members() const {
    return bits_ == kWarpBits ? 0xFFFFFFFFu : ((1u << size()) - 1) << shift_;
  }

  int32_t bits_, lane_, shift_;
};

template <int kBits>
class CudaBlock {
  static constexpr int32_t kThreads = 1 << kBits;

 public:
  __device__ __forceinline__ CudaBlock() : thread_(static_cast<int32_t>(threadIdx.x)) {}

  __device__ static constexpr int32_t size() { return kThreads; }
  __device__ static constexpr int32_t size_bits() { return kBits; }
  __device__ static constexpr int32_t max_group_bits() { return kWarpBits; }

  __device__ __forceinline__ void barrier() const { __syncthreads(); }

  template <class Body>
  __device__ __forceinline__ void for_each(int32_t n, const Body& body) const {
#pragma unroll 1
    for (int32_t i = thread_; i < n; i += kThreads) body(i);
  }

  // From the last thread on.
  template <class Body>
  __device__ __forceinline__ void for_each_apart(int32_t n, const Body& body) const {
#pragma unroll 1
    for (int32_t i = kThreads - 1 - thread_; i < n; i += kThreads) body(i);
  }

  template <class Body>
  __device__ __forceinline__ void for_each_group(int32_t n, int32_t bits, const Body& body) const {
    CudaGroup group(thread_, bits);
#pragma unroll 1
    for (int32_t i = thread_ >> bits; i < n; i += kThreads >> bits) body(group, i);
  }

  // The upper half of the threads does this, while the lower half waits for its loads.
  __device__ __forceinline__ void zero(void* from, void* to) const {
    const auto n = static_cast<int32_t>(static_cast<int4*>(to) - static_cast<int4*>(from));
    if (thread_ < kThreads / 2) return;
#pragma unroll 4
    for (int32_t i = thread_ - kThreads / 2; i < n; i += kThreads / 2) {
      static_cast<int4*>(from)[i] = int4{0, 0, 0, 0};
    }
  }

  template <class Body>
  __device__ __forceinline__ void once(const Body& body) const {
    if (thread_ == 0) body();
  }

  __device__ __forceinline__ int32_t add(int32_t* to, int32_t value) const {
    return atomicAdd(to, value);
  }
  __device__ __forceinline__ void add(int64_t* to, int64_t value) const {
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
  }
  __device__ __forceinline__ void lower(int32_t* to, int32_t value) const { atomicMin(to, value); }
  __device__ __forceinline__ void raise(int32_t* to, int32_t value) const { atomicMax(to, value); }
  __device__ __forceinline__ void set_bits(uint32_t* to, uint32_t bits) const {
    atomicOr(to, bits);
  }

 private:
  int32_t thread_;
};

}  // namespace smnm
