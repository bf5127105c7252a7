// ObjectCache: free small objects by class, taken from the slabs in batches, so that the common call touches no slab.
//
// C2: a stack holds at most `depth` objects of its class, all taken from the slabs, none live, each with its own record
// C3: depth * object bytes <= kCacheBytes for each class (bounded; given back under pressure)
//
// Threads: under the allocator's lock. Cost: three cache lines.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace reprise {

inline constexpr std::size_t kMaxSmallClasses = 32;
inline constexpr std::size_t kCacheDepth = 60;
inline constexpr std::size_t kCacheBytes = 16384;

constexpr std::size_t cache_depth(std::size_t object_bytes) {
  return object_bytes * kCacheDepth <= kCacheBytes ? kCacheDepth : std::max<std::size_t>(kCacheBytes / object_bytes, 2);
}

using Record = std::atomic<std::uint64_t>;  // what SlabHeap knows of an object

struct alignas(1024) ObjectStack {  // a power of two: found by a shift
  std::size_t count = 0;
  std::size_t depth = 0;  // 0: nothing is cached
  std::size_t object_bytes = 0;
  std::uint64_t allocations = 0;
  std::array<void*, kCacheDepth> pointers{};
  std::array<Record*, kCacheDepth> records{};

  void push(void* pointer, Record* record) noexcept {
    pointers[count] = pointer;
    records[count] = record;
    ++count;
  }
  void drop_oldest(std::size_t number) noexcept {
    std::copy(pointers.data() + number, pointers.data() + count, pointers.data());
    std::copy(records.data() + number, records.data() + count, records.data());
    count -= number;
  }
};

using ObjectCache = std::array<ObjectStack, kMaxSmallClasses>;

}  // namespace reprise
