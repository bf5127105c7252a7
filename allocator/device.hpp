// Device: where an arena's addresses and pages come from, and when a stream has passed a point.
//
// Words. Page: the unit in which memory is committed (page_bytes, a power of two). Reserve: take addresses that hold nothing yet.
// Commit: put memory behind pages. Decommit: give it back, the addresses stay ours. Fence: a point in a stream.
//
// D1: commit(range) == true  => every byte of the range may be read and written
// D2: decommit(range) == true => the range holds no memory; it may be committed again (its content is then unspecified)
// D3: a call that returns false changed nothing
// D4: passed(fence) never goes back from true to false, and is true after wait(fence)
//
// Threads: the allocator makes every call under its lock. Cost: a call is slow (a system call, a driver call); the allocator makes none
// in a repeating sequence of allocations. Failure: false, nullptr, or an empty optional; never an exception.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace reprise {

using StreamId = std::uint32_t;  // 0 is the stream of a device that has no streams

struct Fence {
  StreamId stream = 0;
  std::uint64_t ticket = 0;
};

class Device {
 public:
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  virtual ~Device() = default;

  virtual std::size_t page_bytes() const noexcept = 0;
  virtual std::size_t capacity_bytes() const noexcept = 0;  // memory there is; an allocator reserves a multiple of it in addresses
  virtual std::byte* reserve(std::size_t bytes) noexcept = 0;
  virtual void release(std::byte* base, std::size_t bytes) noexcept = 0;
  virtual bool commit(std::byte* first, std::size_t bytes) noexcept = 0;
  virtual bool decommit(std::byte* first, std::size_t bytes) noexcept = 0;

  virtual std::optional<Fence> record_fence(StreamId stream) noexcept = 0;
  virtual bool passed(Fence fence) noexcept = 0;
  virtual void wait(Fence fence) noexcept = 0;
};

}  // namespace reprise
