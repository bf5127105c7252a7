// The values an allocator takes and gives: options, tags, statistics, and the two ways in which it calls out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>

#include "allocator/device.hpp"

namespace reprise {

inline constexpr std::size_t kNoCap = std::numeric_limits<std::size_t>::max();

struct AllocatorOptions {
  std::size_t rounding_bytes = 64;       // every piece is a multiple of it (power of two); 512 is usual on CUDA
  std::size_t small_limit_bytes = 1024;  // requests up to here are served from slabs; 0: every request is a piece
  bool caches = true;                    // false: what is freed goes back to its slab or joins its neighbours at once
  std::size_t cap_bytes = kNoCap;
  std::size_t arena_bytes = 0;       // addresses to reserve; 0: a multiple of the device's capacity
  std::size_t pool_limit_bytes = 0;  // requests up to here and above are counted apart (pool_statistics()); 0: they are not. Wants small_limit_bytes = 0
};

// What an owner may say about its allocation. 8 bytes, kept out of band, meaning nothing to the allocator.
struct Tag {
  std::uint8_t category = 0;
  bool saved = false;
  std::int32_t region = -1;
  friend bool operator==(const Tag&, const Tag&) = default;
};

// class k counts allocations whose rounded size is in (2^(k-1), 2^k] bytes
inline constexpr std::size_t kSizeClasses = 48;

struct Statistics {
  std::size_t live_bytes = 0;       // requested and not freed
  std::size_t allocated_bytes = 0;  // the same, rounded
  std::size_t reserved_bytes = 0;   // committed and not returned to the device
  std::size_t peak_live_bytes = 0;
  std::size_t peak_allocated_bytes = 0;
  std::size_t peak_reserved_bytes = 0;
  std::size_t cap_bytes = kNoCap;
  std::size_t cached_bytes = 0;   // free small objects that are kept out of their slabs
  std::size_t pending_bytes = 0;  // freed, waiting for a Fence
  std::size_t arena_bytes = 0;    // addresses used so far
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  std::uint64_t failed_allocations = 0;      // answered with nullptr
  std::uint64_t planned_hits = 0;            // served from a planned region
  std::uint64_t planned_misses = 0;          // asked for while a step was followed, and served as always
  std::uint64_t planned_steps = 0;           // begun
  std::uint64_t planned_steps_given_up = 0;  // before their end, for a request that would have failed
  std::uint64_t device_calls = 0;
  std::uint64_t device_failures = 0;  // device calls that failed and were survived
  std::uint64_t trims = 0;
  std::uint64_t trimmed_bytes = 0;
  std::uint64_t pressure_calls = 0;
  std::uint64_t pressure_bytes = 0;  // what the callback said it freed
  std::array<std::uint64_t, kSizeClasses> allocations_per_class{};
};

// One count; given and taken_back since their last reset.
struct Tally {
  std::int64_t now = 0;
  std::int64_t peak = 0;
  std::int64_t given = 0;
  std::int64_t taken_back = 0;
};
struct PoolTallies {
  Tally allocations, allocated_bytes, requested_bytes;
};
struct PoolStatistics {
  PoolTallies all, small, large;
};

// A part of the committed memory, in one state from end to end. kPending: freed, waiting for a Fence. kFree includes what is cached.
struct Stretch {
  enum class State : std::uint8_t { kLive, kPending, kFree };
  std::byte* first = nullptr;
  std::size_t bytes = 0;
  std::size_t requested = 0;  // kLive only
  StreamId stream = 0;
  State state = State::kFree;
};

// Hears of every allocation and free, on the thread that makes it, with no lock held. It must outlive every call it may get:
// take it away (set_observer(nullptr)) and let running calls return before destroying it. on_free comes before the memory is free.
class AllocationObserver {
 public:
  virtual ~AllocationObserver() = default;
  virtual void on_allocate(void* pointer, std::size_t bytes, Tag tag) noexcept = 0;
  virtual void on_free(void* pointer, std::size_t bytes) noexcept = 0;
};

// Asked when a request cannot be served under the cap. Called with no lock held and never nested in one thread.
// Frees what it can and says how many bytes that was; 0 ends the attempt. An exception counts as 0.
using PressureCallback = std::function<std::size_t(std::size_t bytes_needed)>;

}  // namespace reprise
