#include "allocator/cuda/event_fences.hpp"

namespace reprise::cuda {

CUevent EventFences::take_event() noexcept {
  if (!spare_events_.empty()) {
    const CUevent event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }
  CUevent event = nullptr;
  return gpu_.driver->cuEventCreate(&event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS ? event : nullptr;
}

std::optional<Fence> EventFences::record(StreamId id) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Within within(gpu_);
  Stream& stream = streams_[id];
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  if (gpu_.driver->cuStreamIsCapturing(stream.handle, &capture) != CUDA_SUCCESS || capture != CU_STREAM_CAPTURE_STATUS_NONE) return std::nullopt;  // G3
  const CUevent event = take_event();
  if (event == nullptr) return std::nullopt;
  try {
    spare_events_.reserve(spare_events_.size() + stream.outstanding.size() + 1);  // so that complete() cannot fail
    stream.outstanding.push_back(event);
  } catch (...) {
    spare_events_.push_back(event);
    return std::nullopt;
  }
  if (gpu_.driver->cuEventRecord(event, stream.handle) != CUDA_SUCCESS) {
    stream.outstanding.pop_back();
    spare_events_.push_back(event);
    return std::nullopt;
  }
  return Fence{id, ++stream.issued};
}

// Everything up to the ticket: events of one stream pass in order.
void EventFences::complete(Stream& stream, std::uint64_t ticket) {
  for (; stream.completed < ticket; stream.completed++) {
    spare_events_.push_back(stream.outstanding.front());
    stream.outstanding.pop_front();
  }
}

bool EventFences::passed(Fence fence) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Stream& stream = streams_[fence.stream];
  if (stream.has_passed(fence.ticket)) return true;
  const Within within(gpu_);
  if (gpu_.driver->cuEventQuery(stream.event_of(fence.ticket)) != CUDA_SUCCESS) return false;
  complete(stream, fence.ticket);
  return true;
}

// An event that cannot be waited for belongs to a context that is lost, with everything in it: nothing is left to wait for.
void EventFences::wait(Fence fence) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Stream& stream = streams_[fence.stream];
  if (stream.has_passed(fence.ticket)) return;
  const Within within(gpu_);
  gpu_.driver->cuEventSynchronize(stream.event_of(fence.ticket));
  complete(stream, fence.ticket);
}

StreamId EventFences::id_of(CUstream stream) {
  if (stream == nullptr) return 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [at, fresh] = ids_.try_emplace(stream, static_cast<StreamId>(streams_.size()));
  if (fresh) streams_.emplace_back().handle = stream;
  return at->second;
}

CUstream EventFences::handle_of(StreamId stream) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return streams_[stream].handle;
}

}  // namespace reprise::cuda
