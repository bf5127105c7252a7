// Counts: what is live and allocated, and the most that ever was, exact to the byte at every moment.
//
// Each is kept as its peak and the room below it, so that one subtraction both counts and tells whether the peak rises.
// N1: live == peak_live - room_live >= 0 and room_live >= 0; the same for allocated
//
// Allocations are counted where their size is known.
// Threads: under the allocator's lock. Cost: one cache line.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocator/types.hpp"

namespace reprise {

// A level as its peak and the room below it.
struct PeakCount {
  std::int64_t room = 0;
  std::int64_t peak = 0;
  void add(std::size_t bytes) noexcept {
    room -= static_cast<std::int64_t>(bytes);
    if (room >= 0) return;
    peak -= room;
    room = 0;
  }
  void remove(std::size_t bytes) noexcept { room += static_cast<std::int64_t>(bytes); }
  void reset_peak() noexcept {
    peak -= room;
    room = 0;
  }
  std::size_t now() const noexcept { return static_cast<std::size_t>(peak - room); }
};

class Counts {
 public:
  void add(std::size_t requested, std::size_t rounded, std::uint64_t& allocations) noexcept {
    live_.add(requested);
    allocated_.add(rounded);
    ++allocations;
  }
  void remove(std::size_t requested, std::size_t rounded) noexcept {
    live_.remove(requested);
    allocated_.remove(rounded);
    ++frees_;
  }
  void reset_peaks() noexcept {
    live_.reset_peak();
    allocated_.reset_peak();
  }
  std::uint64_t frees() const noexcept { return frees_; }
  std::size_t live_bytes() const noexcept { return live_.now(); }
  std::size_t allocated_bytes() const noexcept { return allocated_.now(); }
  void show(Statistics& now) const noexcept {
    now.live_bytes = live_.now();
    now.allocated_bytes = allocated_.now();
    now.peak_live_bytes = static_cast<std::size_t>(live_.peak);
    now.peak_allocated_bytes = static_cast<std::size_t>(allocated_.peak);
    now.frees = frees_;
  }

 private:
  PeakCount live_;
  PeakCount allocated_;
  std::uint64_t frees_ = 0;
};

}  // namespace reprise
