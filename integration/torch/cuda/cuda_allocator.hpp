// torch's CUDA allocator, decorated: ordinary allocations are served by the caching core; graph capture, private pools, memory shared between processes and
// whatever else must stay native is passed on, unchanged, to the allocator that torch had before.
//
// W1: every DataPtr that leaves here, ours or native's, has context == data and the one deleter raw_deleter(): graph trees compare it, and native's own
//     would never come back to us
// W2: a pointer is ours exactly if it lies in a core's address range; every other one is native's and is freed by native
// W3: what native is handed back bears native's deleter: it ignores every other one, silently (record_stream!)
// W4, W8: routes.hpp
// W5: out of memory is raised only after pressure, native's caches and a second try; the observers hear of it first, with no lock held
//
// W6: memory that overflowed (a learning Pass over the budget) is pinned host memory, of no core and no stream: it is given back when the whole device is through
// W7: while caching is switched off, native answers alone: its memory of that time has a deleter of its own
//
// Streams that torch did not make (torch.cuda.ExternalStream) are native's: their owner may destroy them, and a fence may be recorded long after a free.
// Threads: as torch's. Nothing here is ever destroyed: tensors outlive static destructors.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "integration/torch/cuda/device_memory.hpp"
#include "integration/torch/cuda/history.hpp"
#include "integration/torch/cuda/routes.hpp"
#include REPRISE_CUDA_MINOR

namespace reprise::cuda {

class CudaAllocator final : public MinorForwarding {
 public:
  explicit CudaAllocator(CUDAAllocator& native);

  // nullptr where the device stays native's; the reason was printed once.
  DeviceMemory* memory_of(c10::DeviceIndex device);
  DeviceMemory* made_memory_of(c10::DeviceIndex device) const;  // nullptr too where nobody asked for memory yet: asking makes none
  bool set_budget(c10::DeviceIndex device, std::size_t bytes);  // false: what is live does not fit, and the budget is as before
  void free(void* pointer);

  c10::DataPtr allocate(std::size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void* raw_alloc(std::size_t bytes) override;
  void* raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) override;
  void raw_delete(void* pointer) override;
  void recordStream(const c10::DataPtr& pointer, c10::cuda::CUDAStream stream) override;
  using CUDAAllocator::recordStream;
  void enable(bool value) override;
  void setUseOnOOM(c10::DeviceIndex device, Pool pool, bool use) override;
  void emptyCache(Pool pool) override;
  void cacheInfo(c10::DeviceIndex device, std::size_t* largest) override;
  void* getBaseAllocation(void* pointer, std::size_t* bytes) override;
  torch_allocator::ShareableHandle shareIpcHandle(void* pointer) override;
  cudaError_t memcpyAsync(void* to, int to_device, const void* from, int from_device, std::size_t bytes, cudaStream_t stream, bool peers) override;

  double getMemoryFraction(c10::DeviceIndex device) override;
  void setMemoryFraction(double fraction, c10::DeviceIndex device) override;
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override;
  void resetAccumulatedStats(c10::DeviceIndex device) override;
  void resetPeakStats(c10::DeviceIndex device) override;
  torch_allocator::SnapshotInfo snapshot(Pool pool, bool traces) override;
  void recordHistory(bool enabled, c10::CachingDeviceAllocator::CreateContextFn gather, std::size_t most_entries, RecordContext when, bool clear,
                     const std::vector<std::string>& skipped_actions) override;
  void attachOutOfMemoryObserver(torch_allocator::OutOfMemoryObserver observer) override;
  void attachAllocatorTraceTracker(c10::CachingDeviceAllocator::AllocatorTraceTracker tracker) override;

  void beginAllocateToPool(c10::DeviceIndex device, Pool pool, std::function<bool(cudaStream_t)> filter) override;
  void endAllocateToPool(c10::DeviceIndex device, Pool pool) override;
  torch_allocator::CheckpointDelta setCheckpointPoolState(c10::DeviceIndex device, std::shared_ptr<torch_allocator::AllocatorState> state) override;

 private:
  static constexpr std::size_t kMaxDevices = 64;
  static constexpr std::size_t kTooMuch = std::size_t{1} << 60;  // an exabyte: native has words of its own for that
  struct Slot {
    std::atomic<DeviceMemory*> memory{nullptr};
    std::once_flag asked;
    std::atomic<double> fraction{1.0};
  };

  DeviceMemory* owner_of(const void* pointer) const;
  void free_told(DeviceMemory& memory, void* pointer);  // somebody records history, or profiles
  void free_others(void* pointer);                      // of no core
  void* pass_on(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream, std::uint64_t route);
  DeviceMemory* make_memory_of(c10::DeviceIndex device);
  void* serve(DeviceMemory& memory, std::size_t bytes, cudaStream_t stream);
  void* serve_rest(DeviceMemory& memory, void* pointer, std::size_t bytes, cudaStream_t stream);  // nullptr: the core had none; or history is recorded
  void* take_from_pools(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream);  // of native that may be used when memory runs out; nullptr: none can
  void* take_overflow(c10::DeviceIndex device, std::size_t bytes);                         // nullptr: that is not allowed now, or there is none
  bool give_overflow_back(void* pointer);                                                  // false: not from there
  [[noreturn]] void throw_out_of_memory(DeviceMemory& memory, std::size_t bytes, cudaStream_t stream);
  // Native's turn, under what is left of the limit.
  template <class Ask>
  auto ask_native(c10::DeviceIndex device, Ask&& ask);
  c10::DataPtr adopt(c10::DataPtr native) const override;
  std::int64_t reserved_by_native(c10::DeviceIndex device) const;
  void report(void* pointer, std::int64_t change, const DeviceMemory& memory) const;

  const c10::DeleterFnPtr native_delete_;  // of what native hands out while it caches: a call less than its raw_delete(). nullptr: not known
  std::array<Slot, kMaxDevices> slots_;
  std::atomic<int> served_devices_{0};  // one past the highest of which we serve memory
  Routes routes_;
  std::atomic<bool> enabled_{true}, pools_for_oom_{false};
  std::mutex observers_mutex_;
  std::vector<torch_allocator::OutOfMemoryObserver> observers_;
  History history_;
};

// Makes it torch's allocator, in front of the one there is; false, with one printed line, where that is not torch's own caching allocator.
// Allocations made before stay native's. Touches no driver: that happens at the first allocation on a device.
bool install_cuda_allocator();
CudaAllocator* cuda_allocator();  // nullptr: not installed

}  // namespace reprise::cuda
