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
  require(options.pool_limit_bytes == 0 || small == 0, "small_limit_bytes", small, "0 where requests are counted by pool_limit_bytes");
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

}  // namespace

CachingAllocator::CachingAllocator(Device& device, AllocatorOptions options)
    : small_limit_((options = checked(device, options)).small_limit_bytes),
      rounding_(options.rounding_bytes),
      min_piece_bytes_(options.small_limit_bytes + options.rounding_bytes),
      small_zone_bytes_(0),
      pools_(options.pool_limit_bytes),
      arena_(device, options.arena_bytes),
      slabs_(arena_, zone_bytes(arena_, options), options.rounding_bytes, options.small_limit_bytes, options.caches),
      heap_(arena_, zone_bytes(arena_, options), min_piece_bytes_, options.caches) {
  small_zone_bytes_ = zone_bytes(arena_, options);
  if (slabs_.class_count() == 0) small_limit_ = 0;
  arena_.set_cap(options.cap_bytes);
}

// Fast: something of that size was freed lately, or it is what the plan expects, and this thread has the lock's key. No atomic operation but plain loads and stores;
// every call below is in tail position, so that nothing is saved for it.
void* CachingAllocator::allocate(std::size_t bytes) noexcept {
  BiasedLock::Key* const key = lock_.enter_with_key();
  if (key == nullptr) return allocate_slow(bytes, 0);
  void* pointer;
  const bool found = bytes - 1 < small_limit_ ? take_object_locked(bytes, pointer) : take_piece_locked(bytes, pointer) || take_hit_locked(bytes, pointer);
  BiasedLock::leave_with_key(key);
  if (!found) return allocate_slow(bytes, 0);
  AllocationObserver* const observer = observer_.load(std::memory_order_acquire);
  return observer == nullptr ? pointer : told(*observer, pointer, bytes);
}

// The object's stack, its record and the counts.
inline bool CachingAllocator::take_object_locked(std::size_t bytes, void*& pointer) noexcept {
  ObjectStack& stack = slabs_.stack_for(bytes);
  const std::size_t last = stack.count - 1;
  if (stack.count == 0) return false;
  stack.count = last;
  pointer = stack.pointers[last];
  last_object_ = {pointer, stack.records[last], &stack};
  last_object_.record->store(bytes, std::memory_order_relaxed);
  counts_.add(bytes, stack.object_bytes, stack.allocations);
  return true;
}

// The stack of that size, the piece and the counts. 0 bytes, and more than rounding can bear, are left to the slow path.
inline bool CachingAllocator::take_piece_locked(std::size_t bytes, void*& pointer) noexcept {
  if (bytes - 1 >= arena_.bytes()) return false;
  const std::size_t rounded = (bytes + rounding_ - 1) & ~(rounding_ - 1);  // below min_piece_bytes_ no stack has that size
  PieceCache::Stack& stack = heap_.stack_for(rounded);
  if (stack.bytes != rounded || stack.count == 0) return false;
  Piece* const piece = stack.pieces[--stack.count];
  piece->requested = bytes;
  piece->tag.store(Tag{}, std::memory_order_relaxed);
  count_in_locked(*piece);
  pointer = arena_.base() + piece->offset;
  last_piece_ = piece;
  return true;
}

inline void CachingAllocator::count_in_locked(const Piece& piece) noexcept {
  counts_.add(piece.requested, piece.bytes, allocations_per_class_[piece.size_class]);
  if (pools_.wanted()) pools_.add(piece.requested, piece.bytes);
}

// The planned piece that is expected next, if it has that size and its bytes are free: nothing is searched. Whatever else is left to the slow path, which may pass pieces over.
inline bool CachingAllocator::take_hit_locked(std::size_t bytes, void*& pointer) noexcept {
  if (!heap_.planning() || bytes - 1 >= arena_.bytes() || !pending_.empty()) return false;
  Piece* const piece = heap_.take_hit(rounded_piece(bytes));
  if (piece == nullptr) return false;
  pointer = handed_out_locked(*piece, bytes);
  return true;
}

void* CachingAllocator::handed_out_locked(Piece& piece, std::size_t bytes) noexcept {
  piece.requested = bytes;
  piece.tag.store(Tag{}, std::memory_order_relaxed);
  count_in_locked(piece);
  last_piece_ = &piece;
  return arena_.base() + piece.offset;
}

void* CachingAllocator::told(AllocationObserver& observer, void* pointer, std::size_t bytes) noexcept {
  observer.on_allocate(pointer, bytes, Tag{});
  return pointer;
}

void* CachingAllocator::allocate_slow(std::size_t bytes, StreamId stream) noexcept {
  bytes = std::max<std::size_t>(bytes, 1);
  void* pointer = nullptr;
  bool first = true;
  for (bool again = true; again; first = false) {
    {
      const Hold hold(lock_);
      // The plan is asked once: a second question would be taken for the next request.
      if (!pending_.empty()) poll_pending_locked(false);
      Piece* const piece =
          first && stream == 0 && bytes > small_limit_ && bytes <= arena_.bytes() && heap_.planning() ? heap_.take_planned(rounded_piece(bytes)) : nullptr;
      pointer = piece != nullptr ? handed_out_locked(*piece, bytes) : allocate_locked(bytes, stream);
    }
    again = pointer == nullptr && relieve(bytes);
  }
  if (pointer == nullptr) {
    const Hold hold(lock_);
    ++failed_allocations_;
    return nullptr;
  }
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_allocate(pointer, bytes, Tag{});
  return pointer;
}

void* CachingAllocator::allocate_locked(std::size_t bytes, StreamId stream) noexcept {
  if (bytes > arena_.bytes()) return nullptr;
  const bool small = bytes <= small_limit_ && stream == 0;
  const auto attempt = [&] {
    void* pointer = small ? allocate_small_locked(bytes) : nullptr;
    return pointer != nullptr ? pointer : allocate_piece_locked(bytes, stream);
  };
  void* pointer = attempt();
  if (pointer != nullptr) return pointer;
  // Free pages of the heap are given back already. What is left: what waits for streams, cached objects, idle slabs, and at last the planned region.
  poll_pending_locked(true);
  slabs_.give_cached();
  trimmed_bytes_ += slabs_.trim(kNoCap);
  pointer = attempt();
  if (pointer != nullptr || !heap_.end_planned()) return pointer;
  ++planned_steps_given_up_;
  return attempt();
}

void* CachingAllocator::allocate_small_locked(std::size_t bytes) noexcept {
  void* pointer;
  if (take_object_locked(bytes, pointer)) return pointer;
  ObjectStack& stack = slabs_.stack_for(bytes);
  Record* record = nullptr;
  last_object_ = {};  // slabs may change their class now
  pointer = slabs_.take(stack, &record);
  if (pointer == nullptr) return nullptr;
  record->store(bytes, std::memory_order_relaxed);
  counts_.add(bytes, stack.object_bytes, stack.allocations);
  return pointer;
}

void* CachingAllocator::allocate_piece_locked(std::size_t bytes, StreamId stream) noexcept {
  void* pointer;
  if (stream == 0 && take_piece_locked(bytes, pointer)) return pointer;
  Piece* const piece = heap_.take(rounded_piece(bytes), stream);
  return piece == nullptr ? nullptr : handed_out_locked(*piece, bytes);
}

// Fast: what is freed goes onto the stack of its size. The same conditions and cost as allocate.
void CachingAllocator::deallocate(void* pointer) noexcept {
  BiasedLock::Key* const key = observer_.load(std::memory_order_relaxed) == nullptr ? lock_.enter_with_key() : nullptr;
  if (key == nullptr) return free_slow(pointer);
  const std::size_t offset = offset_of(pointer);
  const bool done = offset < small_zone_bytes_ ? keep_object_locked(pointer, offset) : keep_piece_locked(offset);
  BiasedLock::leave_with_key(key);
  if (!done) free_slow(pointer);
}

// What was handed out last is often freed first: then the next request of its size need not wait for a lookup.
inline bool CachingAllocator::keep_object_locked(void* pointer, std::size_t offset) noexcept {
  Record* record = last_object_.record;
  ObjectStack* stack = last_object_.stack;
  if (pointer != last_object_.pointer) {
    Slab* const slab = slabs_.slab_at(offset);
    if (slab == nullptr) return false;
    record = &slabs_.record(*slab, offset);
    stack = slab->stack;
  }
  const ObjectRecord found{record->load(std::memory_order_relaxed)};
  if (!found.is_plain() || !slabs_.keep(*stack, pointer, record)) return false;
  record->store(0, std::memory_order_relaxed);
  counts_.remove(found.requested(), stack->object_bytes);
  return true;
}

// The same for pieces. Those of a planned region go back to it.
inline bool CachingAllocator::keep_piece_locked(std::size_t offset) noexcept {
  Piece* piece = last_piece_;
  if (piece->offset != offset) {
    piece = offset < arena_.bytes() ? heap_.find(offset) : nullptr;  // the offset of nullptr is beyond
    if (piece == nullptr || piece->offset != offset) return false;
  }
  const std::size_t requested = piece->requested, rounded = piece->bytes;
  if (requested == 0) return false;
  if (!heap_.keep(piece)) {
    if (!piece->planned || piece->recorded) return false;
    heap_.give_planned(piece);
  }
  count_out_locked(requested, rounded);
  return true;
}

// Everything else: somebody listens, another thread, no room in the cache, a mistake.
void CachingAllocator::free_slow(void* pointer) noexcept {
  if (pointer == nullptr) return;
  const std::size_t offset = offset_of(pointer);
  const std::size_t bytes = size_of(pointer);
  if (bytes == 0) die("freed a pointer that is not live", pointer);
  if (AllocationObserver* observer = observer_.load(std::memory_order_acquire)) observer->on_free(pointer, bytes);
  const Hold hold(lock_);
  if (!(offset < small_zone_bytes_ ? keep_object_locked(pointer, offset) : keep_piece_locked(offset))) free_locked(pointer);
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
  Record& record = slabs_.record(slab_of(pointer), offset);
  record.store(ObjectRecord{record.load(std::memory_order_relaxed)}.with(tag).word, std::memory_order_relaxed);
}

}  // namespace reprise
