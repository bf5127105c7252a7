#include "integration/torch/cuda/cuda_allocator.hpp"

#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <c10/util/env.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "allocator/cuda/driver.hpp"
#include "integration/torch/overflow.hpp"

namespace reprise::cuda {

namespace {

using c10::CachingAllocator::StatType;

std::atomic<CudaAllocator*> installed{nullptr};

void give_back(void* pointer) { installed.load(std::memory_order_acquire)->free(pointer); }

// Where there is one device, which one is current is no question; else the check costs as much as the answer.
c10::DeviceIndex current_device() {
  static const bool only_one = c10::cuda::device_count() == 1;
  if (only_one) return 0;
  c10::DeviceIndex device = 0;
  if (const cudaError_t error = c10::cuda::GetDevice(&device); error != cudaSuccess) C10_CUDA_CHECK(error);
  return device;
}

// An external stream's number is its handle, which is even; those of torch's pools are odd, the default stream's is 0.
bool is_external(const c10::cuda::CUDAStream& stream) { return stream.id() != 0 && stream.id() % 2 == 0; }

// The default stream has number and handle 0.
cudaStream_t handle_of(const c10::cuda::CUDAStream& stream) { return stream.id() == 0 ? nullptr : stream.stream(); }

}  // namespace

CudaAllocator::CudaAllocator(CUDAAllocator& native) : MinorForwarding(native), native_delete_(native.isEnabled() ? native.raw_deleter() : nullptr) {}

DeviceMemory* CudaAllocator::memory_of(c10::DeviceIndex device) {
  DeviceMemory* const memory = made_memory_of(device);
  return memory != nullptr ? memory : make_memory_of(device);
}

DeviceMemory* CudaAllocator::make_memory_of(c10::DeviceIndex device) {
  Slot& slot = slots_.at(static_cast<std::size_t>(device));
  std::call_once(slot.asked, [&] {
    std::string why;
    slot.memory = DeviceMemory::make(device, slot.fraction, why).release();  // lives as long as the process
    if (DeviceMemory* const memory = slot.memory) {
      memory->device().keep_changes(history_.enabled());
      if (slot.fraction < 1) memory->native_reserves(static_cast<std::size_t>(reserved_by_native(device)));
      memory->set_fraction(slot.fraction);  // which may be set meanwhile: whoever does looks for the memory afterwards
    }
    int seen = served_devices_.load();
    while (seen <= device && !served_devices_.compare_exchange_weak(seen, device + 1)) {
    }
    if (!why.empty()) std::fprintf(stderr, "reprise: CUDA memory stays with torch's own allocator: %s\n", why.c_str());
  });
  return slot.memory.load(std::memory_order_acquire);
}

DeviceMemory* CudaAllocator::made_memory_of(c10::DeviceIndex device) const {
  return slots_.at(static_cast<std::size_t>(device)).memory.load(std::memory_order_acquire);
}

DeviceMemory* CudaAllocator::owner_of(const void* pointer) const {
  const int count = served_devices_.load(std::memory_order_acquire);
  for (int i = 0; i < count; i++) {
    DeviceMemory* const memory = slots_[static_cast<std::size_t>(i)].memory.load(std::memory_order_acquire);
    if (memory != nullptr && memory->owns(pointer)) return memory;
  }
  return nullptr;
}

c10::DataPtr CudaAllocator::adopt(c10::DataPtr native) const {
  void* const pointer = native.get();
  const c10::Device device = native.device();
  native.release_context();
  return {pointer, pointer, &give_back, device};
}

std::int64_t CudaAllocator::reserved_by_native(c10::DeviceIndex device) const {
  return native_.getDeviceStats(device).reserved_bytes[static_cast<std::size_t>(StatType::AGGREGATE)].current;
}

template <class Ask>
auto CudaAllocator::ask_native(c10::DeviceIndex device, Ask&& ask) {
  DeviceMemory* const memory = made_memory_of(device);
  if (memory == nullptr || memory->limit() == kNoCap) return ask();
  const std::size_t left = memory->limit() - std::min(memory->limit(), memory->reserved_bytes());
  native_.setMemoryFraction(static_cast<double>(left) / static_cast<double>(memory->capacity_bytes()), device);
  auto answer = ask();
  memory->native_reserves(static_cast<std::size_t>(reserved_by_native(device)));
  return answer;
}

c10::DataPtr CudaAllocator::allocate(std::size_t bytes) {
  if (!enabled_.load(std::memory_order_relaxed)) return native_.allocate(bytes);  // W7
  if (bytes - 1 >= kTooMuch) return adopt(native_.allocate(bytes));               // 0 bytes too
  const c10::DeviceIndex index = current_device();
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(index);
  const cudaStream_t handle = handle_of(stream);
  const std::uint64_t route = routes_.wanting(index, handle);
  DeviceMemory* const memory = route != 0 || is_external(stream) ? nullptr : memory_of(index);
  void* const pointer = memory != nullptr ? serve(*memory, bytes, handle) : pass_on(index, bytes, handle, route);
  return {pointer, pointer, &give_back, c10::Device(c10::DeviceType::CUDA, index)};
}

// Device, stream and pool are known here: native is asked by the call that takes the stream.
void* CudaAllocator::pass_on(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream, std::uint64_t route) {
  const Routes::Passing passing(route, stream);
  return ask_native(device, [&] { return native_.raw_alloc_with_stream(bytes, stream); });
}

void* CudaAllocator::raw_alloc(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  return enabled_.load(std::memory_order_relaxed) ? allocate(bytes).release_context() : native_.raw_alloc(bytes);
}

// The stream is a bare handle here: only the current one's maker is known.
void* CudaAllocator::raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) {
  const c10::DeviceIndex index = current_device();
  if (stream == c10::cuda::getCurrentCUDAStream(index).stream()) return raw_alloc(bytes);
  return ask_native(index, [&] { return native_.raw_alloc_with_stream(bytes, stream); });
}

// Fast: the core has it, and nobody records history.
inline void* CudaAllocator::serve(DeviceMemory& memory, std::size_t bytes, cudaStream_t stream) {
  void* const pointer = memory.allocate(bytes, stream);
  if (pointer == nullptr || history_.wanted()) return serve_rest(memory, pointer, bytes, stream);
  if (c10::memoryProfilingEnabled()) report(pointer, static_cast<std::int64_t>(bytes), memory);
  return pointer;
}

void* CudaAllocator::serve_rest(DeviceMemory& memory, void* pointer, std::size_t bytes, cudaStream_t stream) {
  if (pointer == nullptr && routes_.none()) {  // native gives nothing back while it serves a capture
    native_.emptyCache(Pool{0, 0});
    memory.native_reserves(static_cast<std::size_t>(reserved_by_native(memory.index())));
    memory.count_retry();
    pointer = memory.allocate(bytes, stream);
  }
  if (pointer == nullptr) {
    if (void* const pooled = take_from_pools(memory.index(), bytes, stream)) return pooled;
    if (void* const pinned = take_overflow(memory.index(), bytes)) return pinned;
    throw_out_of_memory(memory, bytes, stream);
  }
  if (history_.wanted()) {
    Context context = history_.context(RecordContext::STATE);
    history_.pages_changed(memory.index(), memory.device().take_changes(), context);
    history_.allocated(memory.index(), pointer, bytes, stream, std::move(context));
  }
  if (c10::memoryProfilingEnabled()) report(pointer, static_cast<std::int64_t>(bytes), memory);
  return pointer;
}

void* CudaAllocator::take_from_pools(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream) {
  if (!pools_for_oom_) return nullptr;
  try {
    return ask_native(device, [&] { return native_.raw_alloc_with_stream(bytes, stream); });
  } catch (const c10::OutOfMemoryError&) {
    return nullptr;
  }
}

void CudaAllocator::setUseOnOOM(c10::DeviceIndex device, Pool pool, bool use) {
  native_.setUseOnOOM(device, pool, use);
  if (use) pools_for_oom_ = true;
}

void CudaAllocator::enable(bool value) {
  native_.enable(value);
  enabled_ = value;
}

void CudaAllocator::raw_delete(void* pointer) {
  const bool overflowed = overflow::live_bytes() > 0 && overflow::size_of(pointer) > 0;
  enabled_.load(std::memory_order_relaxed) || overflowed || owner_of(pointer) != nullptr ? free(pointer) : native_.raw_delete(pointer);
}

void CudaAllocator::free(void* pointer) {
  DeviceMemory* const memory = owner_of(pointer);  // nobody's, if it is nullptr
  if (memory == nullptr) return free_others(pointer);
  if (history_.wanted() || c10::memoryProfilingEnabled()) return free_told(*memory, pointer);
  memory->deallocate(pointer);
}

// The deleter's way: what native handed out through us was made while it cached, whatever it does now (W7). Others may have made what raw_delete() is given.
void CudaAllocator::free_others(void* pointer) {
  if (pointer == nullptr || (overflow::live_bytes() > 0 && give_overflow_back(pointer))) return;
  if (native_delete_ != nullptr) return native_delete_(pointer);
  native_.raw_delete(pointer);
}

void CudaAllocator::free_told(DeviceMemory& memory, void* pointer) {
  const std::size_t bytes = memory.size_of(pointer);
  if (history_.wanted()) history_.freed(memory.index(), pointer, bytes, nullptr, history_.context(RecordContext::ALL));
  memory.deallocate(pointer);
  if (c10::memoryProfilingEnabled()) report(pointer, -static_cast<std::int64_t>(bytes), memory);
}

void CudaAllocator::report(void* pointer, std::int64_t change, const DeviceMemory& memory) const {
  c10::CachingDeviceAllocator::DeviceStats stats = native_.getDeviceStats(memory.index());
  memory.add_to(stats);
  const auto all = static_cast<std::size_t>(StatType::AGGREGATE);
  c10::reportMemoryUsageToProfiler(pointer, change, static_cast<std::size_t>(stats.allocated_bytes[all].current),
                                   static_cast<std::size_t>(stats.reserved_bytes[all].current), c10::Device(c10::DeviceType::CUDA, memory.index()));
}

c10::DeleterFnPtr CudaAllocator::raw_deleter() const { return &give_back; }

void CudaAllocator::recordStream(const c10::DataPtr& pointer, c10::cuda::CUDAStream stream) {
  if (pointer.get() == nullptr) return;
  if (overflow::live_bytes() > 0 && overflow::size_of(pointer.get()) > 0) return;         // W6
  if (pointer.get_deleter() != &give_back) return native_.recordStream(pointer, stream);  // made before we were installed
  if (DeviceMemory* const memory = owner_of(pointer.get())) {
    if (!memory->record_stream(pointer.get(), stream.stream())) stream.synchronize();
    return;
  }
  c10::DataPtr as_native(pointer.get(), pointer.get(), native_.raw_deleter(), pointer.device());
  native_.recordStream(as_native, stream);
  as_native.release_context();
}

void CudaAllocator::emptyCache(Pool pool) {
  if (pool == Pool{0, 0})
    for (const Slot& slot : slots_)
      if (DeviceMemory* const memory = slot.memory.load()) {
        memory->trim();
        if (history_.enabled()) history_.pages_changed(memory->index(), memory->device().take_changes(), history_.context(RecordContext::ALL));
      }
  native_.emptyCache(pool);
}

void CudaAllocator::cacheInfo(c10::DeviceIndex device, std::size_t* largest) {
  native_.cacheInfo(device, largest);
  if (const DeviceMemory* const memory = made_memory_of(device)) *largest = std::max(*largest, memory->largest_free());
}

void* CudaAllocator::getBaseAllocation(void* pointer, std::size_t* bytes) {
  if (const std::size_t overflowed = overflow::live_bytes() > 0 ? overflow::size_of(pointer) : 0; overflowed > 0) {
    if (bytes != nullptr) *bytes = overflowed;
    return pointer;
  }
  DeviceMemory* const memory = owner_of(pointer);
  if (memory == nullptr) return native_.getBaseAllocation(pointer, bytes);
  if (bytes != nullptr) *bytes = memory->size_of(pointer);
  return pointer;
}

torch_allocator::ShareableHandle CudaAllocator::shareIpcHandle(void* pointer) {
  TORCH_CHECK(owner_of(pointer) == nullptr,
              "reprise: memory served by reprise cannot be shared between processes; make the tensor inside torch.cuda.use_mem_pool(torch.cuda.MemPool())");
  return native_.shareIpcHandle(pointer);
}

// Pages of ours are mapped for their own device only: between devices the driver copies.
cudaError_t CudaAllocator::memcpyAsync(void* to, int to_device, const void* from, int from_device, std::size_t bytes, cudaStream_t stream, bool peers) {
  if (to_device == from_device || (owner_of(to) == nullptr && owner_of(from) == nullptr))
    return native_.memcpyAsync(to, to_device, from, from_device, bytes, stream, peers);
  const Driver& driver = *Driver::get();
  CUcontext to_context = nullptr, from_context = nullptr;
  if (driver.cuDevicePrimaryCtxRetain(&to_context, to_device) != CUDA_SUCCESS || driver.cuDevicePrimaryCtxRetain(&from_context, from_device) != CUDA_SUCCESS)
    return cudaErrorInvalidDevice;
  const auto address = [](const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); };
  return static_cast<cudaError_t>(driver.cuMemcpyPeerAsync(address(to), to_context, address(from), from_context, bytes, stream));
}

double CudaAllocator::getMemoryFraction(c10::DeviceIndex device) { return slots_.at(static_cast<std::size_t>(device)).fraction; }

void CudaAllocator::setMemoryFraction(double fraction, c10::DeviceIndex device) {
  native_.setMemoryFraction(fraction, device);  // checks the arguments
  slots_.at(static_cast<std::size_t>(device)).fraction = fraction;
  if (DeviceMemory* const memory = made_memory_of(device)) memory->set_fraction(fraction);  // else it is made with it
}

bool CudaAllocator::set_budget(c10::DeviceIndex device, std::size_t bytes) {
  DeviceMemory* const memory = memory_of(device);
  if (memory == nullptr || !memory->set_budget(bytes)) return false;
  native_.setMemoryFraction(getMemoryFraction(device), device);  // it may have been lower, for the former limit
  return true;
}

c10::CachingDeviceAllocator::DeviceStats CudaAllocator::getDeviceStats(c10::DeviceIndex device) {
  auto stats = native_.getDeviceStats(device);
  if (const DeviceMemory* const memory = made_memory_of(device)) memory->add_to(stats);
  return stats;
}

void CudaAllocator::resetAccumulatedStats(c10::DeviceIndex device) {
  native_.resetAccumulatedStats(device);
  if (DeviceMemory* const memory = made_memory_of(device)) memory->reset_accumulated();
}

void CudaAllocator::resetPeakStats(c10::DeviceIndex device) {
  native_.resetPeakStats(device);
  if (DeviceMemory* const memory = made_memory_of(device)) memory->reset_peaks();
}

torch_allocator::SnapshotInfo CudaAllocator::snapshot(Pool pool, bool traces) {
  torch_allocator::SnapshotInfo all = native_.snapshot(pool, traces);
  if (pool != Pool{0, 0}) return all;
  for (const Slot& slot : slots_) {
    const DeviceMemory* const memory = slot.memory.load();
    if (memory == nullptr) continue;
    memory->add_to(all, history_);
    const auto index = static_cast<std::size_t>(memory->index());
    if (traces && index < all.device_traces.size()) history_.add_to(all.device_traces[index], memory->index());
  }
  return all;
}

void CudaAllocator::recordHistory(bool enabled, c10::CachingDeviceAllocator::CreateContextFn gather, std::size_t most_entries, RecordContext when, bool clear,
                                  const std::vector<std::string>& skipped_actions) {
  native_.recordHistory(enabled, gather, most_entries, when, clear, skipped_actions);
  history_.record(enabled, gather, most_entries, when, clear, skipped_actions);
  for (const Slot& slot : slots_)
    if (DeviceMemory* const memory = slot.memory.load()) memory->device().keep_changes(enabled);
}

void CudaAllocator::attachOutOfMemoryObserver(torch_allocator::OutOfMemoryObserver observer) {
  {
    const std::lock_guard<std::mutex> lock(observers_mutex_);
    observers_.push_back(observer);
  }
  native_.attachOutOfMemoryObserver(std::move(observer));
}

void CudaAllocator::attachAllocatorTraceTracker(c10::CachingDeviceAllocator::AllocatorTraceTracker tracker) {
  history_.attach(tracker);
  native_.attachAllocatorTraceTracker(std::move(tracker));
}

void CudaAllocator::beginAllocateToPool(c10::DeviceIndex device, Pool pool, std::function<bool(cudaStream_t)> filter) {
  native_.beginAllocateToPool(device, pool, routes_.begin(device, pool, std::move(filter)));
}

void CudaAllocator::endAllocateToPool(c10::DeviceIndex device, Pool pool) {
  routes_.end(device, pool);
  native_.endAllocateToPool(device, pool);
}

torch_allocator::CheckpointDelta CudaAllocator::setCheckpointPoolState(c10::DeviceIndex device, std::shared_ptr<torch_allocator::AllocatorState> state) {
  torch_allocator::CheckpointDelta delta = native_.setCheckpointPoolState(device, std::move(state));
  for (c10::DataPtr& made : delta.dataptrs_allocd) made = adopt(std::move(made));
  return delta;
}

bool install_cuda_allocator() {
  if (installed.load() != nullptr) return true;
  auto* const native = torch_allocator::get();
  if (const std::string name = native->name(); name != "native") {
    std::fprintf(stderr, "reprise: CUDA memory stays with torch's allocator \"%s\": only the native one can be decorated\n", name.c_str());
    return false;
  }
  if (c10::utils::has_env("PYTORCH_NO_CUDA_MEMORY_CACHING")) {
    std::fprintf(stderr, "reprise: CUDA memory stays with torch's own allocator: PYTORCH_NO_CUDA_MEMORY_CACHING is set\n");
    return false;
  }
  auto* const ours = new CudaAllocator(*native);
  installed.store(ours, std::memory_order_release);
  torch_allocator::allocator.store(ours);
  c10::SetAllocator(c10::DeviceType::CUDA, ours, 255);  // torch.accelerator looks here, and ignores lower priorities
  return true;
}

CudaAllocator* cuda_allocator() { return installed.load(std::memory_order_acquire); }

}  // namespace reprise::cuda
