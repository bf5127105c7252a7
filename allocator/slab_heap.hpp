// SlabHeap: objects of up to small_limit bytes, in slabs of one size class each, in their own stretch of the arena.
//
// Words. Class c: objects of (c + 1) * 64 bytes, rounded up. Slab: kSlabBytes of one class. Record: 8 bytes per object, out of band.
//
// S1: slab.taken == objects of the slab handed out (live, or in the object cache) == objects - |free bits|
// S2: a slab is available exactly if taken > 0 and a bit is free; idle exactly if committed and taken == 0
// S3: a record's requested bytes are 0 unless the object is live
//
// Threads: under the allocator's lock, but for record(), which is for the owner of the object. Cost: take_cached and keep touch the object's
// stack and record; take and give move half a stack. Failure: take() is nullptr when no slab can be committed.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "allocator/arena.hpp"
#include "allocator/object_cache.hpp"

namespace reprise {

inline constexpr std::size_t kSlabBytes = 16384;
inline constexpr std::size_t kUnitBytes = 64;

// 0 unless the object is live. Requested bytes: bits 0-15; category: 16-23; saved: 24; region + 1: 25-56; streams recorded: 63, so that
// "live and no stream recorded" is one comparison, and a fresh Tag{} is all zeros.
struct ObjectRecord {
  std::uint64_t word = 0;
  static constexpr std::uint64_t kRecorded = std::uint64_t{1} << 63;
  std::size_t requested() const { return word & 0xffff; }
  bool recorded() const { return (word & kRecorded) != 0; }
  bool is_plain() const { return static_cast<std::int64_t>(word) > 0; }
  Tag tag() const {
    return {static_cast<std::uint8_t>(word >> 16), ((word >> 24) & 1) != 0, static_cast<std::int32_t>(static_cast<std::uint32_t>(word >> 25) - 1)};
  }
  ObjectRecord with(Tag tag) const {
    return {(word & (0xffff | kRecorded)) | (std::uint64_t{tag.category} << 16) | (std::uint64_t{tag.saved} << 24) |
            (std::uint64_t{static_cast<std::uint32_t>(tag.region) + 1} << 25)};
  }
};

struct Slab {
  std::size_t offset = 0;
  ObjectStack* stack = nullptr;  // of its class
  std::size_t class_index = 0;
  std::size_t taken = 0;
  bool committed = false;
  Slab* previous = nullptr;
  Slab* next = nullptr;
  std::array<std::uint64_t, 4> free_bits{};
  std::array<Record, kSlabBytes / kUnitBytes> records{};  // by unit within the slab
};

class SlabHeap {
 public:
  // Serves [0, bytes) of the arena; bytes == 0 switches it off.
  SlabHeap(Arena& arena, std::size_t bytes, std::size_t rounding_bytes, std::size_t limit_bytes, bool caches);
  ~SlabHeap();
  SlabHeap(const SlabHeap&) = delete;
  SlabHeap& operator=(const SlabHeap&) = delete;

  std::size_t class_count() const { return available_.size(); }
  std::size_t object_bytes(std::size_t class_index) const { return stacks_[class_index].object_bytes; }

  // For the fast path: a stack's objects may be popped. keep() == false: nothing happened, ask give().
  ObjectStack& stack_for(std::size_t bytes) noexcept { return stacks_[(bytes - 1) / kUnitBytes]; }
  static bool keep(ObjectStack& stack, void* object, Record* record) noexcept {
    if (stack.count >= stack.depth) return false;
    stack.push(object, record);
    return true;
  }

  void* take(ObjectStack& stack, Record** record) noexcept;  // fills half of the stack, too
  void give(void* object) noexcept;                          // to its stack, half of which goes back to the slabs when it is full
  void give_cached() noexcept;
  std::size_t trim(std::size_t bytes) noexcept;

  Slab* slab_at(std::size_t offset) const noexcept { return std::atomic_ref<Slab*>(slabs_[offset / kSlabBytes]).load(std::memory_order_acquire); }
  Record& record(Slab& slab, std::size_t offset) const noexcept { return slab.records[(offset % kSlabBytes) / kUnitBytes]; }

  std::size_t cached_bytes() const noexcept;
  const ObjectCache& stacks() const { return stacks_; }

  std::size_t taken_bytes() const { return taken_bytes_; }
  std::size_t address_bytes() const { return next_offset_; }
  PageRange missing() const { return arena_.touching(next_offset_, kSlabBytes); }
  template <class Visit>
  void visit_live(Visit&& visit_object) const {  // (offset, record)
    for (std::size_t offset = 0; offset < next_offset_; offset += kSlabBytes) {
      Slab& slab = *slab_at(offset);
      for (std::size_t i = 0; i < slab.records.size(); ++i) {
        const ObjectRecord found{slab.records[i].load(std::memory_order_relaxed)};
        if (found.requested() != 0) visit_object(offset + i * kUnitBytes, found);
      }
    }
  }
  std::string check() const;

 private:
  std::size_t take_from_slabs(std::size_t class_index, void** objects, std::size_t count) noexcept;
  void give_to_slab(void* object) noexcept;
  void spill(ObjectStack& stack, std::size_t count) noexcept;
  Slab* fresh_slab(std::size_t class_index) noexcept;
  static void push(Slab*& head, Slab* slab) noexcept;
  static void unlink(Slab*& head, Slab* slab) noexcept;
  std::size_t objects_per_slab(std::size_t class_index) const { return kSlabBytes / object_bytes(class_index); }
  std::string check_slab(const Slab& slab) const;
  std::string check_stack(const ObjectStack& stack) const;

  Arena& arena_;
  std::size_t bytes_;
  ObjectCache stacks_;
  Slab** slabs_ = nullptr;  // calloc: touched where used
  std::vector<Slab*> available_;
  Slab* idle_ = nullptr;         // committed, nothing taken
  Slab* uncommitted_ = nullptr;  // given back to the device
  std::size_t next_offset_ = 0;
  std::size_t taken_bytes_ = 0;
};

}  // namespace reprise
