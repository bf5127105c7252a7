// One GPU's memory as we serve it: the caching core over a CudaDevice, what torch counts, and the limit on both allocators of that GPU.
//
// Which CudaDevice: virtual memory management (MappedDevice) where the GPU has it, else one block (MallocDevice). REPRISE_CUDA_DEVICE=vmm or malloc says
// which; under vmm a GPU without it stays torch's. The block is what is free on the GPU when the first allocation comes, less a reserve for others, or less
// where a fraction or REPRISE_BUDGET says so by then (device_memory.cpp). REPRISE_NVTX=1: every allocation is a region that compute-sanitizer knows.
//
// U1: allocated, requested == sums over live allocations, rounded to 512 bytes and as asked for; exact at every moment, as are their peaks (the core's N2)
// U2: reserved by us + reserved by native <= limit()   (native is told what is left before it is asked for memory, we after it)
// U3: stream 0 of the core is the device's default stream
//
// Threads: every function from any thread. Cost: a warm pair is the core's. Failure: allocate() is nullptr; nothing throws but make().
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "allocator/caching_allocator.hpp"
#include "allocator/cuda/cuda_device.hpp"
#include "allocator/cuda/nvtx_regions.hpp"
#include "integration/torch/cuda/history.hpp"

namespace reprise::cuda {

class DeviceMemory {
 public:
  // nullptr, and `why` in words, where the device cannot be served. fraction: torch's limit, which a block is no larger than.
  static std::unique_ptr<DeviceMemory> make(c10::DeviceIndex index, double fraction, std::string& why);

  void* allocate(std::size_t bytes, cudaStream_t stream) noexcept {
    return stream == nullptr && regions_ == nullptr ? core_.allocate(bytes) : allocate_slow(bytes, stream);
  }
  void deallocate(void* pointer) noexcept {  // a live pointer of ours
    if (regions_ != nullptr) regions_->remove(pointer);
    core_.deallocate(pointer);
  }
  bool owns(const void* pointer) const noexcept { return core_.owns(pointer); }
  // false: the note could not be made; the caller waits for the stream instead.
  bool record_stream(void* pointer, cudaStream_t stream) noexcept;
  std::size_t trim() noexcept { return core_.trim(); }
  std::size_t size_of(const void* pointer) const noexcept { return core_.size_of(pointer); }
  std::size_t largest_free() const;

  // kNoCap: none. What is live stays: then nothing more is reserved until it fits.
  void set_fraction(double fraction);  // 1: none
  bool set_budget(std::size_t bytes);  // false: what is live does not fit, and the budget is as before
  std::size_t limit() const { return limit_.load(std::memory_order_relaxed); }
  void native_reserves(std::size_t bytes);  // after every request that native served

  void add_to(c10::CachingDeviceAllocator::DeviceStats& stats) const;
  void add_to(c10::cuda::CUDACachingAllocator::SnapshotInfo& snapshot, const History& history) const;
  void reset_accumulated();
  void reset_peaks();
  void count_out_of_memory() { out_of_memory_++; }
  void count_retry() { retries_++; }

  CachingAllocator& core() noexcept { return core_; }
  CudaDevice& device() noexcept { return *device_; }
  std::size_t reserved_bytes() const { return device_->committed().now; }
  std::size_t capacity_bytes() const { return device_->capacity_bytes(); }
  std::size_t block_bytes() const { return device_->block_bytes(); }                                  // 0: there is no block
  std::size_t usable_bytes() const { return block_bytes() == 0 ? capacity_bytes() : block_bytes(); }  // by us, at most
  c10::DeviceIndex index() const { return index_; }

 private:
  DeviceMemory(c10::DeviceIndex index, std::unique_ptr<CudaDevice> device);
  void* allocate_slow(std::size_t bytes, cudaStream_t stream) noexcept;
  void set_limit(std::size_t& which, std::size_t bytes);
  bool apply_limit();  // under limit_mutex_

  const c10::DeviceIndex index_;
  const std::unique_ptr<CudaDevice> device_;
  CachingAllocator core_;
  const std::unique_ptr<NvtxRegions> regions_;  // nullptr, unless REPRISE_NVTX=1: then they are exactly what is live (X1)

  std::atomic<std::int64_t> out_of_memory_{0}, retries_{0};

  mutable std::mutex limit_mutex_;
  std::size_t fraction_limit_ = kNoCap, budget_ = kNoCap, native_reserved_ = 0;
  std::atomic<std::size_t> limit_{kNoCap};  // the lesser of the first two: asked whenever native is
};

}  // namespace reprise::cuda
