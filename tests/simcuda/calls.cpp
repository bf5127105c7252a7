// The 20 calls of torch's CUDAAllocator interface that CUDAPluggableAllocator refuses or leaves to a failing default: each made as torch makes it, and its answer
// checked. simcuda_call(NAME, pluggable) runs one on torch's allocator of the moment, or, to show that it is a test, on a pluggable one. On the first device.
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/cuda/CUDAPluggableAllocator.h>

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_set>

namespace {

using c10::CachingAllocator::StatType;
using c10::CachingDeviceAllocator::TraceEntry;
using c10::cuda::CUDACachingAllocator::CUDAAllocator;
using c10::cuda::CUDACachingAllocator::RecordContext;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr auto kAll = static_cast<std::size_t>(StatType::AGGREGATE);

void require(bool good, const char* what) {
  if (!good) throw std::runtime_error(what);
}

// A pool of its own for as long as this lives; inside() while allocations go there.
class Pool {
 public:
  explicit Pool(CUDAAllocator& allocator) : allocator_(allocator) {
    static unsigned long long made = 1 << 20;
    id = {0, ++made};
    allocator_.createOrIncrefPool(0, id, nullptr);
  }
  ~Pool() { allocator_.releasePool(0, id); }
  c10::DataPtr allocate(std::size_t bytes) {
    allocator_.beginAllocateToPool(0, id, [](cudaStream_t) { return true; });
    c10::DataPtr made = allocator_.allocate(bytes);
    allocator_.endAllocateToPool(0, id);
    return made;
  }
  c10::MempoolId_t id;

 private:
  CUDAAllocator& allocator_;
};

void get_memory_fraction(CUDAAllocator& allocator) {
  allocator.setMemoryFraction(0.5, 0);
  const double fraction = allocator.getMemoryFraction(0);
  allocator.setMemoryFraction(1.0, 0);
  require(fraction == 0.5 && allocator.getMemoryFraction(0) == 1.0, "the fraction is not the one that was set");
}

void get_expandable_segment_sizes(CUDAAllocator& allocator) {
  for (const auto& segment : allocator.getExpandableSegmentSizes(0)) require(segment.total_size > 0, "an empty segment");
}

void cache_info(CUDAAllocator& allocator) {
  allocator.allocate(64 * kMiB).clear();
  std::size_t largest = 0;
  allocator.cacheInfo(0, &largest);
  require(largest >= 64 * kMiB, "what is cached is not found");
}

void get_device_stats(CUDAAllocator& allocator) {
  const auto before = allocator.getDeviceStats(0);
  const c10::DataPtr kept = allocator.allocate(3 * kMiB);
  const auto now = allocator.getDeviceStats(0);
  require(now.allocated_bytes[kAll].current - before.allocated_bytes[kAll].current == 3 * kMiB, "allocated_bytes did not follow");
  require(now.allocation[kAll].current - before.allocation[kAll].current == 1, "allocation did not follow");
}

void reset_accumulated_stats(CUDAAllocator& allocator) {
  const c10::DataPtr kept = allocator.allocate(3 * kMiB);
  allocator.resetAccumulatedStats(0);
  require(allocator.getDeviceStats(0).allocated_bytes[kAll].allocated == 0, "something is left");
}

void reset_peak_stats(CUDAAllocator& allocator) {
  allocator.allocate(300 * kMiB).clear();
  allocator.resetPeakStats(0);
  const auto stats = allocator.getDeviceStats(0);
  require(stats.allocated_bytes[kAll].peak == stats.allocated_bytes[kAll].current, "the peak is not what is there");
}

void snapshot(CUDAAllocator& allocator) {
  const c10::DataPtr kept = allocator.allocate(5 * kMiB);
  std::size_t found = 0;
  for (const auto& segment : allocator.snapshot({0, 0}, true).segments) {
    std::size_t address = segment.address;
    for (const auto& block : segment.blocks) {
      if (reinterpret_cast<void*>(address) == kept.get()) found += block.allocated && block.size >= 5 * kMiB ? 1 : 0;
      address += block.size;
    }
  }
  require(found == 1, "the snapshot does not have the block");
}

// What another process does with the handle: two_processes_share_a_pool_s_memory (refused_by_pluggable.py).
void share_ipc_handle(CUDAAllocator& allocator) {
  Pool pool(allocator);
  const c10::DataPtr first = pool.allocate(kMiB), second = pool.allocate(kMiB);
  const auto one = allocator.shareIpcHandle(first.get()), two = allocator.shareIpcHandle(second.get());
  require(!one.handle.empty() && one.handle == two.handle, "two pieces of one segment have one handle");
  require(two.offset - one.offset == static_cast<std::byte*>(second.get()) - static_cast<std::byte*>(first.get()), "the offsets are not the pieces'");
}

// A handle from another process is needed: that the driver is asked, and says no to one's own, is what one process can see.
void get_ipc_device_pointer(CUDAAllocator& allocator) {
  Pool pool(allocator);
  const c10::DataPtr kept = pool.allocate(kMiB);
  const auto shared = allocator.shareIpcHandle(kept.get());
  std::string answer;
  try {
    allocator.getIpcDevPtr(shared.handle);
  } catch (const c10::Error& error) {
    answer = error.what();
  }
  (void)cudaGetLastError();
  require(answer.find("CUDA error") != std::string::npos, "a process cannot open its own handle");
}

void record_history(CUDAAllocator& allocator) {
  allocator.recordHistory(true, nullptr, 1000, RecordContext::NEVER, true, {});
  const c10::DataPtr kept = allocator.allocate(7 * kMiB);
  std::size_t found = 0;
  const auto shown = allocator.snapshot({0, 0}, true);
  for (const TraceEntry& entry : shown.device_traces.at(0))
    found += entry.action_ == TraceEntry::ALLOC && reinterpret_cast<void*>(entry.addr_) == kept.get() ? 1 : 0;
  allocator.recordHistory(false, nullptr, 1000, RecordContext::NEVER, true, {});
  require(found == 1, "the allocation is not in the history");
}

void is_history_enabled(CUDAAllocator& allocator) {
  require(!allocator.isHistoryEnabled(), "nobody asked for it");
  allocator.recordHistory(true, nullptr, 1000, RecordContext::NEVER, true, {});
  const bool enabled = allocator.isHistoryEnabled();
  allocator.recordHistory(false, nullptr, 1000, RecordContext::NEVER, true, {});
  require(enabled && !allocator.isHistoryEnabled(), "it is not what was asked for");
}

void attach_out_of_memory_observer(CUDAAllocator& allocator) {
  static int heard = 0;
  allocator.attachOutOfMemoryObserver(
      [](std::int64_t device, std::size_t bytes, std::size_t, std::size_t) { heard += device == 0 && bytes > 1000 * kMiB ? 1 : 0; });
  try {
    allocator.allocate(kMiB << 20);
  } catch (const c10::OutOfMemoryError&) {
  }
  require(heard == 1, "it was to be heard of once");
}

void attach_allocator_trace_tracker(CUDAAllocator& allocator) {
  static std::map<std::size_t, std::size_t> allocated;
  static std::size_t mistakes = 0;
  allocator.attachAllocatorTraceTracker([](const TraceEntry& entry) {
    if (entry.action_ == TraceEntry::ALLOC) allocated[entry.addr_] = entry.size_;
    if (entry.action_ == TraceEntry::FREE_COMPLETED) mistakes += allocated.erase(entry.addr_) == 1 ? 0 : 1;
  });
  Pool pool(allocator);
  for (const bool pooled : {false, true}) {
    c10::DataPtr kept = pooled ? pool.allocate(9 * kMiB) : allocator.allocate(9 * kMiB);
    const auto address = reinterpret_cast<std::size_t>(kept.get());
    require(allocated.contains(address) && allocated[address] >= 9 * kMiB, "an allocation was not told");
    kept.clear();
    require(!allocated.contains(address), "a free was not told");
  }
  require(mistakes == 0, "a free of what was never allocated was told");
}

void get_checkpoint_state(CUDAAllocator& allocator) {
  Pool pool(allocator);
  const c10::DataPtr kept = pool.allocate(4 * kMiB);
  require(allocator.getCheckpointState(0, pool.id) != nullptr, "there is no state");
}

// As graph trees use it: the pool's state is written down, something is freed, and the state is put back. What was live then is freed by that, and everything is made anew.
void set_checkpoint_pool_state(CUDAAllocator& allocator) {
  Pool pool(allocator);
  c10::DataPtr kept = pool.allocate(4 * kMiB), freed = pool.allocate(4 * kMiB);
  const auto state = allocator.getCheckpointState(0, pool.id);
  const std::set<void*> live = {kept.get(), freed.get()};
  freed.clear();
  auto delta = allocator.setCheckpointPoolState(0, state);
  require(delta.ptrs_freed == std::vector<void*>{kept.get()}, "what was live was not freed");
  kept.release_context();
  std::set<void*> again;
  for (const c10::DataPtr& made : delta.dataptrs_allocd) {
    again.insert(made.get());
    require(made.get_deleter() == allocator.raw_deleter(), "what was made has another deleter");
  }
  require(again == live, "what was live then is not live again");
}

void get_pool_use_count(CUDAAllocator& allocator) {
  const Pool pool(allocator);
  require(allocator.getPoolUseCount(0, pool.id) == 1, "it has one user");
}

void create_or_incref_pool(CUDAAllocator& allocator) {
  const Pool pool(allocator);
  allocator.createOrIncrefPool(0, pool.id, nullptr);
  const int users = allocator.getPoolUseCount(0, pool.id);
  allocator.releasePool(0, pool.id);
  require(users == 2 && allocator.getPoolUseCount(0, pool.id) == 1, "it has two users, then one");
}

void set_use_on_oom(CUDAAllocator& allocator) {
  Pool pool(allocator);
  allocator.emptyCache({0, 0});
  pool.allocate(3000 * kMiB).clear();
  allocator.setUseOnOOM(0, pool.id, true);
  allocator.allocate(2000 * kMiB).clear();  // the device has 4096
  allocator.setUseOnOOM(0, pool.id, false);
}

void set_no_split(CUDAAllocator& allocator) {
  Pool pool(allocator);
  allocator.setNoSplit(0, pool.id);
  const c10::DataPtr kept = pool.allocate(2 * kMiB);
  for (const auto& segment : allocator.snapshot(pool.id, false).segments) require(segment.blocks.size() == 1, "a block was split");
}

void check_pool_live_allocations(CUDAAllocator& allocator) {
  Pool pool(allocator);
  const c10::DataPtr kept = pool.allocate(kMiB);
  require(allocator.checkPoolLiveAllocations(0, pool.id, {kept.get()}), "that is what is live");
  require(!allocator.checkPoolLiveAllocations(0, pool.id, {}), "there is more live than nothing");
}

// W8: how often a pool's filter is asked for one request. Not one of the 20.
void a_filter_is_asked_once(CUDAAllocator& allocator) {
  Pool pool(allocator);
  static int asked = 0;
  asked = 0;
  allocator.beginAllocateToPool(0, pool.id, [](cudaStream_t) { return ++asked > 0; });
  for (int i = 0; i < 10; i++) allocator.allocate(kMiB).clear();
  allocator.endAllocateToPool(0, pool.id);
  require(asked == 10, ("10 requests, and the filter was asked " + std::to_string(asked) + " times").c_str());
}

using Call = void (*)(CUDAAllocator&);
const std::map<std::string, Call>& calls() {
  static const std::map<std::string, Call> all = {
      {"getMemoryFraction", get_memory_fraction},
      {"getExpandableSegmentSizes", get_expandable_segment_sizes},
      {"cacheInfo", cache_info},
      {"getDeviceStats", get_device_stats},
      {"resetAccumulatedStats", reset_accumulated_stats},
      {"resetPeakStats", reset_peak_stats},
      {"snapshot", snapshot},
      {"shareIpcHandle", share_ipc_handle},
      {"getIpcDevPtr", get_ipc_device_pointer},
      {"recordHistory", record_history},
      {"attachOutOfMemoryObserver", attach_out_of_memory_observer},
      {"attachAllocatorTraceTracker", attach_allocator_trace_tracker},
      {"getCheckpointState", get_checkpoint_state},
      {"setCheckpointPoolState", set_checkpoint_pool_state},
      {"getPoolUseCount", get_pool_use_count},
      {"createOrIncrefPool", create_or_incref_pool},
      {"setUseOnOOM", set_use_on_oom},
      {"setNoSplit", set_no_split},
      {"checkPoolLiveAllocations", check_pool_live_allocations},
      {"isHistoryEnabled", is_history_enabled},
      {"a filter is asked once", a_filter_is_asked_once},
  };
  return all;
}

// As torch's, but that its memory can be freed while it is not torch's allocator of the moment.
class Pluggable final : public torch::cuda::CUDAPluggableAllocator::CUDAPluggableAllocator {
 public:
  Pluggable() : CUDAPluggableAllocator([](std::size_t, int, cudaStream_t) { return nullptr; }, [](void*, std::size_t, int, cudaStream_t) {}) {}
  c10::DataPtr allocate(std::size_t bytes) override {
    void* pointer = nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, cudaMalloc(&pointer, bytes) == cudaSuccess, "out of memory");
    return {pointer, pointer, [](void* freed) { (void)cudaFree(freed); }, c10::Device(c10::DeviceType::CUDA, 0)};
  }
};

CUDAAllocator& pluggable_allocator() {
  static Pluggable made;
  return made;
}

}  // namespace

// nullptr: it works; else what went wrong, valid until this thread's next call.
extern "C" __attribute__((visibility("default"))) const char* simcuda_call(const char* name, int pluggable) {
  static thread_local std::string text;
  try {
    calls().at(name)(pluggable != 0 ? pluggable_allocator() : *c10::cuda::CUDACachingAllocator::get());
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
  }
  return text.c_str();
}
