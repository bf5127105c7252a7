// What torch.cuda.memory._record_memory_history asks for, of the allocations that we serve: entries in order, and who made what is live.
//
// Threads: every function from any thread. context() may take the GIL: call it while no lock is held.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "allocator/cuda/cuda_device.hpp"

namespace reprise::cuda {

using c10::CachingDeviceAllocator::RecordContext;
using c10::CachingDeviceAllocator::TraceEntry;
using Context = std::shared_ptr<c10::GatheredContext>;

class History {
 public:
  // The arguments of torch's recordHistory.
  void record(bool enabled, c10::CachingDeviceAllocator::CreateContextFn gather, std::size_t most_entries, RecordContext when, bool clear,
              const std::vector<std::string>& skipped_actions);
  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  // Told of every entry from now on, whether history is recorded or not, with no lock held. It must neither allocate on a device nor take the GIL (torch's own rule).
  void attach(c10::CachingDeviceAllocator::AllocatorTraceTracker tracker);
  bool wanted() const { return wanted_.load(std::memory_order_relaxed); }  // somebody wants to hear of allocations
  Context context(RecordContext at_least) const;                           // nullptr where such events are recorded without

  void allocated(c10::DeviceIndex device, void* pointer, std::size_t bytes, void* stream, Context context);
  void freed(c10::DeviceIndex device, void* pointer, std::size_t bytes, void* stream, Context context);
  void ran_out(c10::DeviceIndex device, std::size_t free_bytes, std::size_t asked_bytes, void* stream, Context context);

  // Pages that came and went: entries of the history only. Trackers are not told: they may want to let go of a page before it is given back.
  void pages_changed(c10::DeviceIndex device, const std::vector<PageChange>& changes, const Context& context);

  Context of_live(void* pointer) const;
  void add_to(std::vector<TraceEntry>& entries, c10::DeviceIndex device) const;  // merged by time

 private:
  void note(TraceEntry::Action action, c10::DeviceIndex device, std::size_t address, std::size_t bytes, void* stream, Context context);
  void keep(TraceEntry entry);  // under the mutex, while history is recorded

  using Trackers = std::vector<c10::CachingDeviceAllocator::AllocatorTraceTracker>;

  mutable std::mutex mutex_;
  std::atomic<bool> enabled_{false}, wanted_{false};
  std::shared_ptr<const Trackers> trackers_;
  c10::CachingDeviceAllocator::CreateContextFn gather_ = nullptr;
  RecordContext when_ = RecordContext::NEVER;
  std::size_t most_entries_ = 0;
  std::unordered_set<int> skipped_;
  std::deque<TraceEntry> entries_;
  std::unordered_map<void*, Context> live_;
};

}  // namespace reprise::cuda
