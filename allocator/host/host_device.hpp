// HostDevice: process memory from the kernel. Addresses are mapped without access (they cost nothing); access is given in large steps
// the first time a step is used, so that later commits are no system call at all; giving back is MADV_DONTNEED.
//
// Huge pages: a block of 2 MiB is advised to be one as long as all its pages are committed, so that the kernel never puts memory behind
// pages that the arena counts as given back. What a block held before it was complete is moved into the huge page once, then and there.
//
// M1: a step's access bit is set exactly if the step may be read and written
// M2: a block is advised exactly if pages_of_block == all of them
//
// There are no streams: a Fence has always passed.
#pragma once

#include <cstdint>
#include <vector>

#include "allocator/device.hpp"

namespace reprise {

struct HostOptions {
  bool huge_pages = true;  // fewer TLB misses; off where the system says never
};

class HostDevice final : public Device {
 public:
  explicit HostDevice(HostOptions options = {});

  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t capacity_bytes() const noexcept override { return capacity_bytes_; }
  std::byte* reserve(std::size_t bytes) noexcept override;
  void release(std::byte* base, std::size_t bytes) noexcept override;
  bool commit(std::byte* first, std::size_t bytes) noexcept override;
  bool decommit(std::byte* first, std::size_t bytes) noexcept override;
  std::optional<Fence> record_fence(StreamId stream) noexcept override { return Fence{stream, 0}; }
  bool passed(Fence) noexcept override { return true; }
  void wait(Fence) noexcept override {}

 private:
  struct Range {
    std::byte* base;
    std::size_t bytes;
    std::vector<bool> accessible;               // by step
    std::vector<std::uint16_t> pages_of_block;  // committed ones; as long as it was ever needed
  };
  Range* range_of(const std::byte* address) noexcept;
  void count_pages(Range& range, std::byte* first, std::size_t bytes, bool committed) noexcept;

  HostOptions options_;
  std::size_t page_bytes_;
  std::size_t capacity_bytes_;
  std::vector<Range> ranges_;
};

}  // namespace reprise
