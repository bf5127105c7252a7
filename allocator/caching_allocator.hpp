// CachingAllocator: memory for tensors, from one Device, under one cap.
//
// Words. Live: requested and not freed. Allocated: the same, rounded. Reserved: committed pages. Small: served from slabs (SlabHeap);
// everything else is a Piece (PieceHeap). Cached: free, but kept as it was for the next request of its size. Pending: freed while another
// stream may still use it.
//
// A2: reserved <= cap, always, whatever other threads do             (arena.hpp)
// B1: live == sum(requested bytes of what visit_live shows)
// B2: allocated == sum of the same, rounded
// B3: heap.used == sum(rounded pieces live) + cached pieces + pending pieces
// B4: slabs.taken == sum(rounded objects live) + cached objects + pending objects
// S*, P*, H*, F*, L1, C*, K*: in their headers. check_invariants() names the first that is broken; call it while no other thread is inside.
//
// Live, allocated and both peaks are exact to the byte at every moment, whichever threads allocate.
//
// Threads: every function may be called from any thread. Neither callback nor observer is ever called with the lock held.
// Cost: a pair of a size that was freed lately is two pops and pushes under a lock that costs its only user four stores; otherwise a
// best fit under the same lock. A repeating sequence makes no device call.
// Failure: allocate() answers nullptr; freeing what is not live aborts with a message; nothing throws but the constructor (bad_alloc,
// and std::invalid_argument for options that make no sense).
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "allocator/arena.hpp"
#include "allocator/biased_lock.hpp"
#include "allocator/counts.hpp"
#include "allocator/device.hpp"
#include "allocator/piece_heap.hpp"
#include "allocator/planned_step.hpp"
#include "allocator/pool_counts.hpp"
#include "allocator/slab_heap.hpp"
#include "allocator/types.hpp"

namespace reprise {

class CachingAllocator {
 public:
  explicit CachingAllocator(Device& device, AllocatorOptions options = {});
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // 0 bytes are served as 1. nullptr: out of memory, or over the cap with nothing more to free.
  void* allocate(std::size_t bytes) noexcept;  // on stream 0
  void* allocate(std::size_t bytes, StreamId stream) noexcept { return stream == 0 ? allocate(bytes) : allocate_slow(bytes, stream); }
  void deallocate(void* pointer) noexcept;  // nullptr is allowed

  // Until it is freed and `stream` has passed what it holds then, the memory goes to nobody else.
  // false: memory for the note is out; the caller must wait for the stream before freeing.
  bool record_stream(void* pointer, StreamId stream) noexcept;

  bool owns(const void* pointer) const noexcept { return offset_of(pointer) < arena_.bytes(); }  // an address of this allocator, live or not
  std::size_t size_of(const void* pointer) const noexcept;                                       // requested bytes
  void set_tag(void* pointer, Tag tag) noexcept;
  Tag tag(const void* pointer) const noexcept;

  // Lowers or raises the cap; gives free memory back and asks the pressure callback if that is needed.
  // false: what is live does not fit, and the cap is as before.
  bool set_cap(std::size_t bytes) noexcept;
  std::size_t trim() noexcept;  // gives all free memory back to the device; returns bytes
  void set_pressure(PressureCallback callback);
  void set_observer(AllocationObserver* observer) noexcept { observer_.store(observer, std::memory_order_release); }

  // From now on the n-th request on stream 0 that is not small gets the place of the step's n-th planned piece, where it has its size and its bytes are
  // free; every other request is served as always (a miss). False: the region does not fit under the cap, or the sizes are no multiples of the rounding.
  // Over with the next begin or end, with trim(), and where a request would fail otherwise. What is live then stays where it is.
  bool begin_planned(const std::shared_ptr<const PlannedStep>& step) noexcept;
  // only: where no other step was begun meanwhile; its region then stays free of others while there is room for them (piece_heap.hpp), and the next step begins
  // there. nullptr: it is anybody's at once. True: a step was followed until now.
  bool end_planned(const PlannedStep* only = nullptr) noexcept;

  Statistics statistics() const;
  // Every address that may be handed out lies in [arena_first(), arena_first() + arena_bytes()).
  const std::byte* arena_first() const noexcept { return arena_.base(); }
  std::size_t arena_bytes() const noexcept { return arena_.bytes(); }
  std::size_t page_bytes() const noexcept { return arena_.page_bytes(); }
  std::size_t rounding_bytes() const noexcept { return rounding_; }
  std::size_t small_limit_bytes() const noexcept { return small_limit_; }
  bool caches() const noexcept { return heap_.caches(); }
  void reset_peaks() noexcept;
  // Of the options' pool_limit_bytes; pending_bytes in the same moment. Their peaks and totals are reset apart from the rest.
  PoolStatistics pool_statistics(std::size_t* pending_bytes = nullptr) const noexcept;
  void reset_pool_peaks() noexcept;
  void reset_pool_totals() noexcept;
  // Shows every live allocation; `show` runs with no lock held, on a copy made under it.
  void visit_live(const std::function<void(void*, std::size_t, Tag)>& show) const;
  // All committed memory outside slabs, in address order; stretches that touch belong to the same pages. On a device with slabs they are not in it.
  std::vector<Stretch> stretches() const;
  std::string check_invariants() const;  // empty, or "<number>: what is wrong"

  // For pthread_atfork, in the forking thread. The child has no cap, no callback and no observer.
  void before_fork() noexcept { fork_key_ = lock_.enter(); }
  void after_fork_in_parent() noexcept { lock_.leave(fork_key_); }
  void after_fork_in_child() noexcept;

 private:
  struct Pending {
    void* pointer;
    std::vector<StreamId> streams;  // no Fence yet
    std::vector<Fence> fences;
  };

  std::size_t offset_of(const void* pointer) const noexcept { return static_cast<std::size_t>(static_cast<const std::byte*>(pointer) - arena_.base()); }
  std::size_t rounded_piece(std::size_t bytes) const noexcept { return std::max((bytes + rounding_ - 1) & ~(rounding_ - 1), min_piece_bytes_); }
  Slab& slab_of(const void* pointer) const noexcept;
  Piece& piece_of(const void* pointer) const noexcept;
  bool take_object_locked(std::size_t bytes, void*& pointer) noexcept;
  bool take_piece_locked(std::size_t bytes, void*& pointer) noexcept;
  bool take_hit_locked(std::size_t bytes, void*& pointer) noexcept;
  void* handed_out_locked(Piece& piece, std::size_t bytes) noexcept;
  void count_in_locked(const Piece& piece) noexcept;
  void count_out_locked(std::size_t requested, std::size_t rounded) noexcept {
    counts_.remove(requested, rounded);
    if (pools_.wanted()) pools_.remove(requested, rounded);
  }
  static void* told(AllocationObserver& observer, void* pointer, std::size_t bytes) noexcept;
  void* allocate_slow(std::size_t bytes, StreamId stream) noexcept;
  void* allocate_locked(std::size_t bytes, StreamId stream) noexcept;
  void* allocate_small_locked(std::size_t bytes) noexcept;
  void* allocate_piece_locked(std::size_t bytes, StreamId stream) noexcept;
  bool keep_object_locked(void* pointer, std::size_t offset) noexcept;
  bool keep_piece_locked(std::size_t offset) noexcept;
  void free_slow(void* pointer) noexcept;
  void free_locked(void* pointer) noexcept;
  bool note_stream_locked(void* pointer, StreamId stream);
  void postpone_locked(void* pointer) noexcept;
  bool is_passed_locked(Pending& pending, bool wait) noexcept;
  void poll_pending_locked(bool wait) noexcept;
  void release_locked(void* pointer) noexcept;
  std::size_t trim_locked(std::size_t bytes) noexcept;
  bool relieve(std::size_t bytes) noexcept;
  std::size_t rounded_bytes(const void* pointer) const noexcept;
  std::string check_sums_locked() const;

  // read on every call, written almost never
  std::size_t small_limit_;
  std::size_t rounding_;
  std::size_t min_piece_bytes_;
  std::atomic<AllocationObserver*> observer_{nullptr};
  std::size_t small_zone_bytes_;
  mutable BiasedLock lock_;

  // under the lock
  Counts counts_;
  PoolCounts pools_;
  struct {
    void* pointer = nullptr;
    Record* record = nullptr;
    ObjectStack* stack = nullptr;
  } last_object_;  // popped last
  Piece no_piece_{.offset = kNoCap};
  Piece* last_piece_ = &no_piece_;
  std::array<std::uint64_t, kSizeClasses> allocations_per_class_{};  // of pieces
  Arena arena_;
  SlabHeap slabs_;
  PieceHeap heap_;
  std::size_t pending_bytes_ = 0;
  std::uint64_t failed_allocations_ = 0;
  std::uint64_t planned_steps_ = 0;
  std::uint64_t planned_steps_given_up_ = 0;
  std::uint64_t trims_ = 0;
  std::uint64_t trimmed_bytes_ = 0;
  std::uint64_t pressure_calls_ = 0;
  std::uint64_t pressure_bytes_ = 0;
  BiasedLock::Key* fork_key_ = nullptr;
  std::vector<Pending> pending_;
  std::unordered_map<void*, Pending> recorded_;
  std::shared_ptr<const PressureCallback> pressure_;
};

}  // namespace reprise
