#include "allocator/caching_allocator.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace reprise {

namespace {

[[noreturn]] void die(const char* what, const void* pointer) noexcept {
  std::fprintf(stderr, "reprise: %s: %p\n", what, pointer);
  std::abort();
}

AllocatorOptions checked(const Device& device, AllocatorOptions options) {
  const auto require = [](bool good, const char* argument, std::size_t value, const char* limit) {
    if (!good) throw std::invalid_argument(std::string(argument) + " is " + std::to_string(value) + ", must be " + limit);
  };
  require(std::has_single_bit(options.rounding_bytes) && options.rounding_bytes >= 16, "rounding_bytes", options.rounding_bytes,
          "a power of two of at least 16");
  const std::size_t small = options.small_limit_bytes;
  require(small == 0 || (options.rounding_bytes >= 64 && small % options.rounding_bytes == 0 && small <= kSlabBytes / 2 &&
                         small / options.rounding_bytes <= kMaxSmallClasses),
          "small_limit_bytes", small, "0, or a multiple of rounding_bytes (of 64 or more), at most 8192 bytes and 32 classes");
  if (device.page_bytes() > kSlabBytes) options.small_limit_bytes = 0;  // a page would hold several slabs
  if (options.arena_bytes == 0) {
    const std::size_t wanted = std::clamp<std::size_t>(device.capacity_bytes(), std::size_t{1} << 20, std::size_t{1} << 40) * 16;
    options.arena_bytes = wanted;
  }
  return options;
}

std::size_t zone_bytes(const Arena& arena, const AllocatorOptions& options) {
  return options.small_limit_bytes == 0 ? 0 : arena.bytes() / 16 / kSlabBytes * kSlabBytes;
}

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

CachingAllocator::CachingAllocator(Device& device, AllocatorOptions options)
    : small_limit_((options = checked(device, options)).small_limit_bytes),
      unit_shift_(static_cast<unsigned>(std::countr_zero(options.rounding_bytes))),
      id_(next_id()),
      small_zone_bytes_(0),
      thread_caches_(options.thread_caches && options.small_limit_bytes != 0),
      rounding_(options.rounding_bytes),
      min_piece_bytes_(options.small_limit_bytes + options.rounding_bytes),
      arena_(device, options.arena_bytes),
      slabs_(arena_, zone_bytes(arena_, options), options.rounding_bytes, options.small_limit_bytes),
      heap_(arena_, zone_bytes(arena_, options), min_piece_bytes_),
      gate_(std::make_shared<Gate>()) {
  small_zone_bytes_ = zone_bytes(arena_, options);
  if (slabs_.class_count() == 0) small_limit_ = 0, thread_caches_ = false;
  arena_.set_cap(options.cap_bytes);
  gate_->allocator = this;
}

std::size_t CachingAllocator::class_of(std::size_t rounded) {
  return std::min<std::size_t>(kSizeClasses - 1, static_cast<std::size_t>(std::bit_width(rounded - 1)));
}

CachingAllocator::~CachingAllocator() {
  const std::lock_guard hold(gate_->lock);
  gate_->allocator = nullptr;
}

ThreadCache* CachingAllocator::cache() const noexcept {
  if (!thread_caches_) return nullptr;
  return thread_slot.allocator_id == id_ ? thread_slot.cache : find_thread_cache(gate_, id_);
}

// Fast: a small object from this thread's cache. No lock, no system call; the cache's stack, the record and the counters.
void* CachingAllocator::allocate(std::size_t bytes, StreamId stream) noexcept {
  if (bytes - 1 >= small_limit_ || stream != 0 || thread_slot.allocator_id != id_) return allocate_slow(bytes, stream);
  ThreadCache& cache = *thread_slot.cache;
  const std::size_t class_index = (bytes - 1) >> unit_shift_;
  CacheStack& stack = cache.stacks[class_index];
  const std::int64_t count = stack.count.get();
  if (count == 0) return allocate_slow(bytes, stream);
  void* const pointer = stack.objects[static_cast<std::size_t>(count - 1)];
  stack.count.add(-1);
  stack.allocations.add(1);
  cache.live_bytes.add(static_cast<std::int64_t>(bytes));
  cache.allocated_bytes.add(static_cast<std::int64_t>((class_index + 1) << unit_shift_));
  const std::size_t offset = offset_of(pointer);
  slabs_.record(*slabs_.slab_at(offset), offset).store(ObjectRecord::kUntagged | bytes, std::memory_order_relaxed);
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_allocate(pointer, bytes, Tag{});
  return pointer;
}

void* CachingAllocator::allocate_slow(std::size_t bytes, StreamId stream) noexcept {
  bytes = std::max<std::size_t>(bytes, 1);
  ThreadCache* const mine = cache();
  void* pointer = nullptr;
  for (bool again = true; again;) {
    {
      const std::lock_guard hold(gate_->lock);
      collect_counts_locked(mine);
      pointer = allocate_locked(bytes, stream, mine);
    }
    again = pointer == nullptr && relieve(bytes);
  }
  if (pointer == nullptr) {
    const std::lock_guard hold(gate_->lock);
    ++failed_allocations_;
    return nullptr;
  }
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_allocate(pointer, bytes, Tag{});
  return pointer;
}

void* CachingAllocator::allocate_locked(std::size_t bytes, StreamId stream, ThreadCache* cache) noexcept {
  if (bytes > arena_.bytes()) return nullptr;
  if (!pending_.empty()) poll_pending_locked(false);
  const bool small = bytes <= small_limit_ && stream == 0;
  const auto attempt = [&] {
    void* pointer = small ? allocate_small_locked(bytes, cache) : nullptr;
    return pointer != nullptr ? pointer : allocate_piece_locked(bytes, stream);
  };
  void* pointer = attempt();
  if (pointer != nullptr) return pointer;
  // Free pages of the heap are given back already. What is left: what waits for streams, this thread's cache, idle slabs.
  poll_pending_locked(true);
  if (cache != nullptr) give_cached_locked(*cache);
  trimmed_bytes_ += slabs_.trim(kNoCap);
  return attempt();
}

void* CachingAllocator::allocate_small_locked(std::size_t bytes, ThreadCache* cache) noexcept {
  const std::size_t class_index = (bytes - 1) >> unit_shift_;
  const std::size_t object = slabs_.object_bytes(class_index);
  void* pointer = nullptr;
  std::array<void*, kCacheDepth> fresh;
  const std::size_t wanted = cache == nullptr ? 1 : ThreadCache::depth(object) / 2;
  std::size_t got = slabs_.take(class_index, fresh.data(), wanted);
  if (got == 0) return nullptr;
  pointer = fresh[--got];
  if (cache != nullptr) {
    CacheStack& stack = cache->stacks[class_index];
    std::size_t count = static_cast<std::size_t>(stack.count.get());
    for (std::size_t i = 0; i < got; ++i) {
      if (count < ThreadCache::depth(object)) {
        stack.objects[count++] = fresh[i];
      } else {
        slabs_.give(&fresh[i], 1);
      }
    }
    stack.count.add(static_cast<std::int64_t>(count) - stack.count.get());
  }
  ++allocations_per_class_[class_of(object)];
  const std::size_t offset = offset_of(pointer);
  slabs_.record(*slabs_.slab_at(offset), offset).store(ObjectRecord::kUntagged | bytes, std::memory_order_relaxed);
  count_locked(static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(object));
  return pointer;
}

void* CachingAllocator::allocate_piece_locked(std::size_t bytes, StreamId stream) noexcept {
  const std::size_t rounded = std::max((bytes + rounding_ - 1) & ~(rounding_ - 1), min_piece_bytes_);
  Piece* piece = heap_.take(rounded, stream);
  if (piece == nullptr) return nullptr;
  piece->requested = bytes;
  piece->tag.store(Tag{}, std::memory_order_relaxed);
  ++allocations_per_class_[class_of(rounded)];
  count_locked(static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(rounded));
  return arena_.base() + piece->offset;
}

// Fast: a small object goes back to this thread's cache. The same cost as allocate.
void CachingAllocator::deallocate(void* pointer) noexcept {
  if (pointer == nullptr) return;
  const std::size_t offset = offset_of(pointer);
  if (offset >= small_zone_bytes_) return free_piece(pointer);
  Slab& slab = slab_of(pointer);
  std::atomic<std::uint64_t>& record = slabs_.record(slab, offset);
  const ObjectRecord found{record.load(std::memory_order_relaxed)};
  if (found.requested() == 0) die("freed a pointer that is not live", pointer);
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_free(pointer, found.requested());
  if (found.recorded() || thread_slot.allocator_id != id_) return free_slow(pointer);
  ThreadCache& mine = *thread_slot.cache;
  CacheStack& stack = mine.stacks[slab.class_index];
  const auto count = static_cast<std::size_t>(stack.count.get());
  const std::size_t object = slabs_.object_bytes(slab.class_index);
  if (count >= ThreadCache::depth(object)) return overflow(pointer, mine);
  record.store(0, std::memory_order_relaxed);
  stack.objects[count] = pointer;
  stack.count.add(1);
  mine.frees.add(1);
  mine.live_bytes.add(-static_cast<std::int64_t>(found.requested()));
  mine.allocated_bytes.add(-static_cast<std::int64_t>(object));
}

void CachingAllocator::free_piece(void* pointer) noexcept {
  const Piece& piece = piece_of(pointer);
  if (piece.requested == 0) die("freed a pointer that is not live", pointer);
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_free(pointer, piece.requested);
  free_slow(pointer);
}

void CachingAllocator::free_slow(void* pointer) noexcept {
  ThreadCache* const mine = cache();
  const std::lock_guard hold(gate_->lock);
  collect_counts_locked(mine);
  free_locked(pointer);
}

// The thread cache is full: half of it goes back to the slabs, with the lock held once.
void CachingAllocator::overflow(void* pointer, ThreadCache& cache) noexcept {
  CacheStack& stack = cache.stacks[slab_of(pointer).class_index];
  const std::lock_guard hold(gate_->lock);
  collect_counts_locked(&cache);
  const auto count = static_cast<std::size_t>(stack.count.get());
  const std::size_t half = count / 2;
  slabs_.give(stack.objects.data(), half);
  std::copy(stack.objects.begin() + static_cast<std::ptrdiff_t>(half), stack.objects.begin() + static_cast<std::ptrdiff_t>(count),
            stack.objects.begin());
  stack.count.add(-static_cast<std::int64_t>(half));
  free_locked(pointer);
}

Slab& CachingAllocator::slab_of(const void* pointer) const noexcept {
  Slab* const slab = slabs_.slab_at(offset_of(pointer));
  if (slab == nullptr) die("not a pointer of this allocator", pointer);
  return *slab;
}

Piece& CachingAllocator::piece_of(const void* pointer) const noexcept {
  const std::size_t offset = offset_of(pointer);
  Piece* const piece = offset < arena_.bytes() ? heap_.find(offset) : nullptr;
  if (piece == nullptr || piece->offset != offset) die("not a live pointer of this allocator", pointer);
  return *piece;
}

std::size_t CachingAllocator::size_of(const void* pointer) const noexcept {
  const std::size_t offset = offset_of(pointer);
  if (offset >= small_zone_bytes_) return piece_of(pointer).requested;
  return ObjectRecord{slabs_.record(slab_of(pointer), offset).load(std::memory_order_relaxed)}.requested();
}

Tag CachingAllocator::tag(const void* pointer) const noexcept {
  const std::size_t offset = offset_of(pointer);
  if (offset >= small_zone_bytes_) return piece_of(pointer).tag.load(std::memory_order_relaxed);
  return ObjectRecord{slabs_.record(slab_of(pointer), offset).load(std::memory_order_relaxed)}.tag();
}

void CachingAllocator::set_tag(void* pointer, Tag tag) noexcept {
  const std::size_t offset = offset_of(pointer);
  if (offset >= small_zone_bytes_) return piece_of(pointer).tag.store(tag, std::memory_order_relaxed);
  std::atomic<std::uint64_t>& record = slabs_.record(slab_of(pointer), offset);
  record.store(ObjectRecord{record.load(std::memory_order_relaxed)}.with(tag).word, std::memory_order_relaxed);
}

}  // namespace reprise
