// SimulatedDevice: a device in arithmetic. It holds no memory; addresses are numbers that nobody may read. Streams are vector clocks.
// The planner prices Plans on it, and the tests break it on purpose.
//
// Words. Work: one thing launched on a stream; its number on that stream is its clock. Known: the work a stream (or the host) comes after.
//
// V1: committed_bytes <= capacity_bytes
// V2: completed[s] <= launched[s] for every stream
// V3: a Fence has passed exactly if its stream completed the work launched before it
//
// Faults: fail_call(k) makes the k-th call from now (reserve, commit, decommit, record_fence; 1 is the next) fail and change nothing.
// Threads: none; the allocator's lock is enough. Cost: commit and decommit are additions; streams cost nothing until used.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "allocator/device.hpp"

namespace reprise {

class SimulatedDevice final : public Device {
 public:
  struct Work {
    StreamId stream = 0;
    std::uint64_t clock = 0;
  };

  explicit SimulatedDevice(std::size_t capacity_bytes, std::size_t page_bytes = std::size_t{2} << 20);

  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t capacity_bytes() const noexcept override { return capacity_bytes_; }
  std::byte* reserve(std::size_t bytes) noexcept override;
  void release(std::byte* base, std::size_t bytes) noexcept override;
  bool commit(std::byte* first, std::size_t bytes) noexcept override;
  bool decommit(std::byte* first, std::size_t bytes) noexcept override;
  std::optional<Fence> record_fence(StreamId stream) noexcept override;
  bool passed(Fence fence) noexcept override;
  void wait(Fence fence) noexcept override;

  Work launch(StreamId stream);                           // new work at the stream's end
  void complete(StreamId stream);                         // the device finishes everything launched on the stream
  void stream_wait(StreamId stream, Fence fence);         // later work on `stream` comes after the fence
  bool comes_after(StreamId stream, Work earlier) const;  // would work launched on `stream` now come after `earlier`?

  void fail_call(std::uint64_t k) { failing_call_ = calls_ + k; }
  void fail_every_call(bool always) { fail_always_ = always; }
  std::uint64_t calls() const { return calls_; }
  std::size_t committed_bytes() const { return committed_bytes_; }

 private:
  using Clocks = std::unordered_map<StreamId, std::uint64_t>;
  struct Stream {
    std::uint64_t launched = 0;
    std::uint64_t completed = 0;
    Clocks known;
  };
  static void join(Clocks& into, const Clocks& other);
  bool fails() noexcept { return ++calls_ == failing_call_ || fail_always_; }
  void host_learns(Fence fence);

  std::size_t capacity_bytes_;
  std::size_t page_bytes_;
  std::size_t committed_bytes_ = 0;
  std::uintptr_t next_base_;
  std::uint64_t calls_ = 0;
  std::uint64_t failing_call_ = 0;
  bool fail_always_ = false;
  std::unordered_map<StreamId, Stream> streams_;
  Clocks host_known_;
};

}  // namespace reprise
