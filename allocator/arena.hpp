// Arena: one reserved address range and the ledger of its committed pages. The only place that makes device calls for memory.
//
// Words. Page number: offset / page_bytes. Run: pages next to each other in one state.
//
// A1: reserved_bytes == page_bytes * |committed pages|
// A2: reserved_bytes <= cap_bytes                       (checked before every commit: the cap is hard)
// A3: a page's bit is set exactly if the device's last successful call for it was a commit
//
// Threads: under the allocator's lock. Cost: the queries read one bit per page. Failure: commit() says why it could not; what it
// committed before the failing run stays committed and is in the ledger.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "allocator/device.hpp"
#include "allocator/types.hpp"

namespace reprise {

struct PageRange {
  std::size_t first = 0;
  std::size_t last = 0;  // one past
  std::size_t count() const { return last > first ? last - first : 0; }
};

enum class CommitResult { kDone, kOverCap, kDeviceFailed };

class Arena {
 public:
  // Reserves wanted_bytes, or the largest half, quarter, … of it that the device gives.
  Arena(Device& device, std::size_t wanted_bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* base() const { return base_; }
  std::size_t bytes() const { return bytes_; }
  std::size_t page_bytes() const { return page_bytes_; }
  Device& device() { return device_; }

  PageRange touching(std::size_t offset, std::size_t bytes) const;  // pages that overlap the range
  PageRange inside(std::size_t offset, std::size_t bytes) const;    // pages that lie in it wholly
  std::size_t committed_in(PageRange pages) const;
  std::size_t uncommitted_in(PageRange pages) const { return pages.count() - committed_in(pages); }
  std::size_t last_committed(PageRange pages) const;                 // one past the last committed page, or pages.first
  PageRange committed_run(PageRange pages, std::size_t from) const;  // the first at `from` or later; empty at pages.last: none

  CommitResult commit(PageRange pages);
  // Gives back committed pages from the end of the range, at most `limit` of them. Returns how many.
  std::size_t decommit(PageRange pages, std::size_t limit);

  std::size_t reserved_bytes() const { return reserved_bytes_; }
  std::size_t peak_reserved_bytes() const { return peak_reserved_bytes_; }
  std::size_t cap_bytes() const { return cap_bytes_; }
  std::size_t over_cap_by(PageRange pages) const;  // bytes to give back before `pages` can be committed
  void set_cap(std::size_t bytes) { cap_bytes_ = bytes; }
  void reset_peak() { peak_reserved_bytes_ = reserved_bytes_; }
  std::uint64_t device_calls() const { return device_calls_; }
  std::uint64_t device_failures() const { return device_failures_; }
  std::size_t recount() const;  // reserved_bytes by the bits, for check_invariants

 private:
  struct Free {
    void operator()(std::uint64_t* words) const;
  };
  bool bit(std::size_t page) const { return (words_[page >> 6] >> (page & 63)) & 1; }
  void set_bits(PageRange pages, bool value);
  std::size_t run_end(std::size_t page, std::size_t last) const;
  std::size_t run_start(std::size_t page, std::size_t first) const;

  Device& device_;
  std::size_t page_bytes_;
  unsigned page_shift_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t words_count_ = 0;
  std::unique_ptr<std::uint64_t[], Free> words_;
  std::size_t highest_page_ = 0;  // no page from here on was ever committed
  std::size_t reserved_bytes_ = 0;
  std::size_t peak_reserved_bytes_ = 0;
  std::size_t cap_bytes_ = kNoCap;
  std::uint64_t device_calls_ = 0;
  std::uint64_t device_failures_ = 0;
};

}  // namespace reprise
