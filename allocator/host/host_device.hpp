// HostDevice: process memory from the kernel. Addresses are mapped without access (they cost nothing); access is given in large steps
// the first time a step is used, so that later commits are no system call at all; giving back is MADV_DONTNEED.
//
// M1: a step's access bit is set exactly if the step may be read and written
//
// There are no streams: a Fence has always passed.
#pragma once

#include <vector>

#include "allocator/device.hpp"

namespace reprise {

struct HostOptions {
  bool huge_pages = false;  // MADV_HUGEPAGE: slower first touch, more memory, fewer TLB misses
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
    std::vector<bool> accessible;  // by step
  };
  Range* range_of(const std::byte* address) noexcept;

  HostOptions options_;
  std::size_t page_bytes_;
  std::size_t capacity_bytes_;
  std::vector<Range> ranges_;
};

}  // namespace reprise
