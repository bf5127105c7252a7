// ThreadCache: free small objects of one thread, and its share of the counts, so that the common call takes no lock.
//
// C1: count[c] <= depth(c); the objects in it are taken from the slab heap, not live
// C2: sum over classes of count * object bytes <= kCacheBytes * classes   (bounded; given back when the thread ends)
//
// Words. Gate: the allocator's lock together with the list of its caches; it outlives the allocator for threads that end later.
//
// Threads: the arrays are touched by their own thread alone; counts are atomics (plain moves) so that statistics may look.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace reprise {

class CachingAllocator;

inline constexpr std::size_t kMaxSmallClasses = 32;
inline constexpr std::size_t kCacheDepth = 64;
inline constexpr std::size_t kCacheBytes = 16384;

// A counter that one thread writes and others may read.
class OwnedCount {
 public:
  void add(std::int64_t amount) noexcept { value_.store(get() + amount, std::memory_order_relaxed); }
  std::int64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }
  std::int64_t take() noexcept {
    const std::int64_t value = get();
    value_.store(0, std::memory_order_relaxed);
    return value;
  }

 private:
  std::atomic<std::int64_t> value_{0};
};

struct CacheStack {
  OwnedCount count;
  OwnedCount allocations;
  std::array<void*, kCacheDepth> objects{};
};

struct ThreadCache {
  OwnedCount live_bytes;       // not yet added to the allocator's count
  OwnedCount allocated_bytes;
  OwnedCount frees;
  std::array<CacheStack, kMaxSmallClasses> stacks;

  static constexpr std::size_t depth(std::size_t object_bytes) {
    return object_bytes * kCacheDepth <= kCacheBytes ? kCacheDepth : std::max<std::size_t>(kCacheBytes / object_bytes, 2);
  }
};

struct Gate {
  std::mutex lock;
  CachingAllocator* allocator = nullptr;  // nullptr once it is destroyed
  std::vector<std::unique_ptr<ThreadCache>> caches;
};

// The cache this thread used last, and of which allocator (ids are never used twice).
struct ThreadSlot {
  std::uint64_t allocator_id = 0;
  ThreadCache* cache = nullptr;
};
extern thread_local constinit ThreadSlot thread_slot;

// This thread's cache for that allocator, made when it is the first call; nullptr when the thread is ending or memory is out.
ThreadCache* find_thread_cache(const std::shared_ptr<Gate>& gate, std::uint64_t allocator_id) noexcept;

}  // namespace reprise
