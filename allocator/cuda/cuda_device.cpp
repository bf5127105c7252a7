#include "allocator/cuda/cuda_device.hpp"

#include <algorithm>
#include <utility>

namespace reprise::cuda {

namespace {

CUdeviceptr address_of(const std::byte* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

CUmemAllocationProp properties(int ordinal) {
  CUmemAllocationProp wanted{};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  wanted.location.id = ordinal;
  return wanted;
}

// The device's context is current, and a capture that is under way in this thread is not disturbed.
class Within {
 public:
  Within(const Driver& driver, CUcontext context) : driver_(driver) {
    driver_.cuCtxPushCurrent(context);
    driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  }
  ~Within() {
    driver_.cuThreadExchangeStreamCaptureMode(&mode_);
    CUcontext ours;
    driver_.cuCtxPopCurrent(&ours);
  }
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;

 private:
  const Driver& driver_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace

std::unique_ptr<CudaDevice> CudaDevice::make(int ordinal, std::string& why) {
  const Driver* const driver = Driver::get();
  if (driver == nullptr) {
    why = Driver::why_missing();
    return nullptr;
  }
  int can_map = 0;
  CUcontext context = nullptr;
  std::size_t capacity = 0, page = 0;
  const CUmemAllocationProp wanted = properties(ordinal);
  if (driver->cuDeviceGetAttribute(&can_map, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, ordinal) != CUDA_SUCCESS || can_map == 0) {
    why = "device " + std::to_string(ordinal) + " has no virtual memory management";
    return nullptr;
  }
  if (driver->cuDevicePrimaryCtxRetain(&context, ordinal) != CUDA_SUCCESS || driver->cuDeviceTotalMem(&capacity, ordinal) != CUDA_SUCCESS ||
      driver->cuMemGetAllocationGranularity(&page, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS) {
    why = "device " + std::to_string(ordinal) + " does not answer";
    return nullptr;
  }
  return std::unique_ptr<CudaDevice>(new CudaDevice(*driver, ordinal, context, page, capacity));
}

CudaDevice::CudaDevice(const Driver& driver, int ordinal, CUcontext context, std::size_t page_bytes, std::size_t capacity_bytes)
    : driver_(driver), ordinal_(ordinal), context_(context), page_bytes_(page_bytes), capacity_bytes_(capacity_bytes), streams_(1), ids_{{nullptr, 0}} {}

std::byte* CudaDevice::reserve(std::size_t bytes) noexcept {
  const Within within(driver_, context_);
  CUdeviceptr base = 0;
  return driver_.cuMemAddressReserve(&base, bytes, page_bytes_, 0, 0) == CUDA_SUCCESS ? reinterpret_cast<std::byte*>(base) : nullptr;
}

void CudaDevice::release(std::byte* base, std::size_t bytes) noexcept {
  const Within within(driver_, context_);
  driver_.cuMemAddressFree(address_of(base), bytes);
}

// The handle is let go of at once: the memory lives as long as it is mapped.
bool CudaDevice::map_page(CUdeviceptr page) noexcept {
  const CUmemAllocationProp wanted = properties(ordinal_);
  CUmemGenericAllocationHandle memory;
  if (driver_.cuMemCreate(&memory, page_bytes_, &wanted, 0) != CUDA_SUCCESS) return false;
  const bool mapped = driver_.cuMemMap(page, page_bytes_, 0, memory, 0) == CUDA_SUCCESS;
  driver_.cuMemRelease(memory);
  return mapped;
}

bool CudaDevice::commit(std::byte* first, std::size_t bytes) noexcept {
  const Within within(driver_, context_);
  const CUdeviceptr begin = address_of(first);
  CUdeviceptr end = begin;
  while (end < begin + bytes && map_page(end)) end += page_bytes_;
  CUmemAccessDesc access{};
  access.location = properties(ordinal_).location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (end < begin + bytes || driver_.cuMemSetAccess(begin, bytes, &access, 1) != CUDA_SUCCESS) {
    if (end > begin) driver_.cuMemUnmap(begin, end - begin);
    return false;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.now += bytes;
  committed_.given += bytes;
  committed_.commits++;
  committed_.peak = std::max(committed_.peak, committed_.now);
  note_change(first, bytes, true);
  return true;
}

bool CudaDevice::decommit(std::byte* first, std::size_t bytes) noexcept {
  const Within within(driver_, context_);
  if (driver_.cuMemUnmap(address_of(first), bytes) != CUDA_SUCCESS) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.now -= bytes;
  committed_.taken_back += bytes;
  committed_.decommits++;
  note_change(first, bytes, false);
  return true;
}

void CudaDevice::note_change(const std::byte* first, std::size_t bytes, bool committed) noexcept {
  if (!keeps_changes_) return;
  try {
    changes_.push_back({first, bytes, committed});
  } catch (...) {
  }
}

void CudaDevice::keep_changes(bool wanted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  keeps_changes_ = wanted;
  if (!wanted) changes_.clear();
}

std::vector<PageChange> CudaDevice::take_changes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(changes_, {});
}

CUevent CudaDevice::take_event() noexcept {
  if (!spare_events_.empty()) {
    const CUevent event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }
  CUevent event = nullptr;
  return driver_.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS ? event : nullptr;
}

std::optional<Fence> CudaDevice::record_fence(StreamId id) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Within within(driver_, context_);
  Stream& stream = streams_[id];
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  if (driver_.cuStreamIsCapturing(stream.handle, &capture) != CUDA_SUCCESS || capture != CU_STREAM_CAPTURE_STATUS_NONE) return std::nullopt;  // G3
  const CUevent event = take_event();
  if (event == nullptr) return std::nullopt;
  try {
    spare_events_.reserve(spare_events_.size() + stream.outstanding.size() + 1);  // so that complete() cannot fail
    stream.outstanding.push_back(event);
  } catch (...) {
    spare_events_.push_back(event);
    return std::nullopt;
  }
  if (driver_.cuEventRecord(event, stream.handle) != CUDA_SUCCESS) {
    stream.outstanding.pop_back();
    spare_events_.push_back(event);
    return std::nullopt;
  }
  return Fence{id, ++stream.issued};
}

// Everything up to the ticket: events of one stream pass in order.
void CudaDevice::complete(Stream& stream, std::uint64_t ticket) {
  for (; stream.completed < ticket; stream.completed++) {
    spare_events_.push_back(stream.outstanding.front());
    stream.outstanding.pop_front();
  }
}

bool CudaDevice::passed(Fence fence) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Stream& stream = streams_[fence.stream];
  if (has_passed(stream, fence.ticket)) return true;
  const Within within(driver_, context_);
  if (driver_.cuEventQuery(stream.outstanding[fence.ticket - stream.completed - 1]) != CUDA_SUCCESS) return false;
  complete(stream, fence.ticket);
  return true;
}

// An event that cannot be waited for belongs to a context that is lost, with everything in it: nothing is left to wait for.
void CudaDevice::wait(Fence fence) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Stream& stream = streams_[fence.stream];
  if (has_passed(stream, fence.ticket)) return;
  const Within within(driver_, context_);
  driver_.cuEventSynchronize(stream.outstanding[fence.ticket - stream.completed - 1]);
  complete(stream, fence.ticket);
}

StreamId CudaDevice::id_of(CUstream stream) {
  if (stream == nullptr) return 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [at, fresh] = ids_.try_emplace(stream, static_cast<StreamId>(streams_.size()));
  if (fresh) streams_.emplace_back().handle = stream;
  return at->second;
}

CUstream CudaDevice::handle_of(StreamId stream) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return streams_[stream].handle;
}

Committed CudaDevice::committed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return committed_;
}

void CudaDevice::reset_peak() {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.peak = committed_.now;
}

void CudaDevice::reset_totals() {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.given = committed_.taken_back = 0;
  committed_.commits = committed_.decommits = 0;
}

}  // namespace reprise::cuda
