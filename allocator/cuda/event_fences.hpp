// EventFences: the streams of one GPU by number, and points in them as CUDA events.
//
// Words. Stream: a CUstream; StreamId numbers those that were seen, 0 is the device's default stream. Ticket: how many events were recorded on a stream so far.
//
// G2: a stream's outstanding events are those of the tickets (completed, issued], in order
// G3: no fence is recorded on a stream that captures: record() answers nothing, and the allocator asks again later
//
// Threads: every function from any thread. Cost: events are used again; a driver call each for record() and an open passed(). Failure: as Device.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "allocator/cuda/gpu.hpp"
#include "allocator/device.hpp"

namespace reprise::cuda {

class EventFences {
 public:
  explicit EventFences(const Gpu& gpu) : gpu_(gpu), streams_(1), ids_{{nullptr, 0}} {}

  std::optional<Fence> record(StreamId stream) noexcept;
  bool passed(Fence fence) noexcept;
  void wait(Fence fence) noexcept;
  StreamId id_of(CUstream stream);  // the same number for the same handle; throws std::bad_alloc
  CUstream handle_of(StreamId stream) const;

 private:
  struct Stream {
    CUstream handle = nullptr;
    std::uint64_t issued = 0;
    std::uint64_t completed = 0;
    std::deque<CUevent> outstanding;
    bool has_passed(std::uint64_t ticket) const noexcept { return ticket <= completed; }
    CUevent event_of(std::uint64_t ticket) const { return outstanding[ticket - completed - 1]; }
  };

  CUevent take_event() noexcept;
  void complete(Stream& stream, std::uint64_t ticket);

  const Gpu gpu_;
  mutable std::mutex mutex_;    // of everything below
  std::deque<Stream> streams_;  // by StreamId
  std::unordered_map<CUstream, StreamId> ids_;
  std::vector<CUevent> spare_events_;
};

}  // namespace reprise::cuda
