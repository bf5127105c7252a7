// PlannedRegion: who is where while a PlannedStep is followed. The n-th request of the planned sequence gets the n-th planned piece's bytes.
//
// Words. Next: the planned piece that is expected. Due at k: live, and by the plan freed before piece k. Late: live, and due at `next` or before;
// what lay in the region before the step began is late from the start.
//
// R2  live pieces lie inside the region, share no byte, and are in the LiveTable
// R3  a live piece is in exactly one list: late if it is due at `next` or before, else that of its due time; so where nothing is late, R1 says that
//     the bytes of `next` are free
// R4  live_bytes == sum(bytes of the pieces in the lists)
//
// A request of another size than expected is looked for among the next few pieces; what was passed over is not served any more in this step. A late piece
// keeps its bytes: what overlaps it is refused. Both count as a miss; the caller then serves from its heap.
//
// What is planned elsewhere is a hit too. Held: a piece outside the region that was freed while as many of its size are still awaited elsewhere; it stays as it is
// for the next of them, so that what replaces it step by step finds the same bytes for ever. R5: held pieces of a size <= those awaited when they were freed
//
// Threads: under the allocator's lock. Cost: exact() and put(): O(1), no loop; any_near(): at most kLookAhead sizes and kMostLate late pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "allocator/piece.hpp"
#include "allocator/planned_step.hpp"

namespace reprise {

class PlannedRegion {
 public:
  static constexpr std::uint32_t kNoSlot = UINT32_MAX;
  static constexpr std::size_t kLookAhead = 16, kMostLate = 64;

  bool active() const noexcept { return count_ != 0; }
  bool prepare(std::shared_ptr<const PlannedStep> step, std::size_t strangers) noexcept;  // false: memory for the lists is out, and it is not active
  void begin(std::size_t base) noexcept;                                                  // the region's offset in the arena
  void adopt(Piece* piece) noexcept;                                                      // that was there before: its lists are this region's now
  std::vector<Piece*>& end() noexcept;                                                    // the live pieces by offset; inactive from here on

  // Is `next` of that size, and are its bytes free?
  bool exact(std::size_t bytes) const noexcept { return next_ < count_ && pieces_[next_].bytes == bytes && late_ == nullptr && !pieces_[next_].elsewhere; }
  // The same for the next few. False: a miss, or it lies elsewhere; what is in the way was passed over.
  bool any_near(std::size_t bytes) noexcept;
  // After its last piece as much was asked for again: whoever began the step has forgotten it.
  bool overdue() const noexcept { return beyond_ > count_; }
  std::size_t next_offset() const noexcept { return base_ + pieces_[next_].offset; }
  std::size_t next_bytes() const noexcept { return pieces_[next_].bytes; }
  bool hold(Piece* piece) noexcept;              // freed outside; false: nobody awaits it
  Piece* take_back(std::size_t bytes) noexcept;  // held, for the request that any_near() just refused because it lies elsewhere; or nullptr
  Piece* any_held() noexcept;                    // out of the lists, or nullptr: they are empty
  std::size_t held_bytes() const noexcept { return held_bytes_; }
  void put(Piece* piece) noexcept;  // at next_offset(), after one of the two said yes
  void remove(Piece* piece) noexcept;

  const PlannedStep* step() const noexcept { return step_.get(); }  // nullptr: not active
  std::size_t live_count() const noexcept { return live_count_; }
  std::size_t live_bytes() const noexcept { return live_bytes_; }
  std::uint64_t hits() const noexcept { return hits_; }
  std::uint64_t misses() const noexcept { return misses_; }
  std::vector<const Piece*> live() const;  // by offset
  std::string check() const;

 private:
  static void link(Piece*& head, Piece* piece) noexcept;
  Piece*& list_of(const Piece& piece) noexcept;
  struct Held {
    std::size_t bytes = 0, awaited = 0, count = 0;
    Piece* head = nullptr;
  };
  Held* held_of(std::size_t bytes) noexcept;
  Piece* pop(Held& held) noexcept;
  void pass_to(std::size_t next) noexcept;
  bool overlaps_late(const PlannedPiece& piece) const noexcept;

  std::shared_ptr<const PlannedStep> step_;
  const PlannedPiece* pieces_ = nullptr;
  std::size_t count_ = 0;
  std::size_t base_ = 0;
  std::size_t next_ = 0;
  std::size_t beyond_ = 0;  // requests since the last piece's
  Piece* late_ = nullptr;
  std::vector<Piece*> due_;  // by time; the last: those that outlive the step
  std::vector<Piece*> sorted_;
  std::vector<Held> held_;  // by size
  std::size_t held_bytes_ = 0;
  bool was_elsewhere_ = false;  // what any_near() was asked for last
  std::size_t live_count_ = 0;
  std::size_t live_bytes_ = 0;
  std::uint64_t hits_ = 0;
  std::uint64_t misses_ = 0;
};

}  // namespace reprise
