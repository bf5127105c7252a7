#include "allocator/simulated/simulated_device.hpp"

#include <algorithm>

namespace reprise {

SimulatedDevice::SimulatedDevice(std::size_t capacity_bytes, std::size_t page_bytes)
    : capacity_bytes_(capacity_bytes), page_bytes_(page_bytes), next_base_(std::uintptr_t{1} << 50) {}

std::byte* SimulatedDevice::reserve(std::size_t bytes) noexcept {
  if (fails()) return nullptr;
  const std::uintptr_t base = next_base_;
  next_base_ += (bytes + page_bytes_) & ~(page_bytes_ - 1);
  return reinterpret_cast<std::byte*>(base);
}

void SimulatedDevice::release(std::byte*, std::size_t) noexcept {}

bool SimulatedDevice::commit(std::byte*, std::size_t bytes) noexcept {
  if (fails() || bytes > capacity_bytes_ - committed_bytes_) return false;
  committed_bytes_ += bytes;
  return true;
}

bool SimulatedDevice::decommit(std::byte*, std::size_t bytes) noexcept {
  if (fails()) return false;
  committed_bytes_ -= bytes;
  return true;
}

std::optional<Fence> SimulatedDevice::record_fence(StreamId stream) noexcept {
  if (fails()) return std::nullopt;
  const auto found = streams_.find(stream);
  return Fence{stream, found == streams_.end() ? 0 : found->second.launched};
}

bool SimulatedDevice::passed(Fence fence) noexcept {
  if (fence.ticket == 0) return true;
  const bool done = streams_[fence.stream].completed >= fence.ticket;
  if (done) host_learns(fence);
  return done;
}

void SimulatedDevice::wait(Fence fence) noexcept {
  if (fence.ticket == 0) return;
  Stream& stream = streams_[fence.stream];
  stream.completed = std::max(stream.completed, fence.ticket);
  host_learns(fence);
}

// What the host saw finished comes before everything launched from now on.
void SimulatedDevice::host_learns(Fence fence) {
  std::uint64_t& known = host_known_[fence.stream];
  known = std::max(known, fence.ticket);
}

void SimulatedDevice::join(Clocks& into, const Clocks& other) {
  for (const auto& [stream, clock] : other) into[stream] = std::max(into[stream], clock);
}

SimulatedDevice::Work SimulatedDevice::launch(StreamId stream) {
  Stream& target = streams_[stream];
  join(target.known, host_known_);
  target.known[stream] = ++target.launched;
  return {stream, target.launched};
}

void SimulatedDevice::complete(StreamId stream) {
  Stream& target = streams_[stream];
  target.completed = target.launched;
}

void SimulatedDevice::stream_wait(StreamId stream, Fence fence) {
  const Clocks known_there = streams_[fence.stream].known;
  Stream& target = streams_[stream];
  if (known_there.contains(fence.stream) && known_there.at(fence.stream) == fence.ticket) join(target.known, known_there);
  target.known[fence.stream] = std::max(target.known[fence.stream], fence.ticket);
}

bool SimulatedDevice::comes_after(StreamId stream, Work earlier) const {
  if (stream == earlier.stream) return true;
  if (const auto host = host_known_.find(earlier.stream); host != host_known_.end() && host->second >= earlier.clock) return true;
  const auto target = streams_.find(stream);
  if (target == streams_.end()) return false;
  const auto known = target->second.known.find(earlier.stream);
  return known != target->second.known.end() && known->second >= earlier.clock;
}

}  // namespace reprise
