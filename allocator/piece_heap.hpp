// PieceHeap: best fit with coalescing over one stretch of the arena. Fragmentation costs addresses, not memory: when the cap is near,
// whole free pages inside free pieces are given back and the request takes other addresses.
//
// Words. Top: the end of the addresses used so far. Hole: an uncommitted page. Full: a free piece without holes.
// Invariants P1 to P4 are in piece.hpp, L1 in live_table.hpp;
// H1: used_bytes == sum(piece.bytes of used and pending pieces, planned ones included); cached pieces are used ones with requested == 0
// H2: a page from the top on is uncommitted
//
// Order of choice: a piece of just that size from the cache; smallest full piece (no device call); the same again after the cache was given
// back; a full piece of an idle stream; a stretch without holes in one that has some; smallest piece with holes; fresh addresses at the top. So a cached piece is never a reason to commit.
// A piece freed on one stream serves another only after a Fence of the first; so do its pages before they are given back.
//
// Planned: while a PlannedStep is followed, one piece of the heap, the region, is served from by plan (piece_heap_planned.cpp); nothing is cached meanwhile,
// so that every request asks the plan. Afterwards it is parked: what is asked for between two steps lies outside, so that nothing is in the next one's way, as long as
// that commits no more than a kLobby-th of it (two pages, where that is less), all steps together. Beyond that, or where a request would fail, the region is ordinary
// pieces again, live and free ones. Where nothing is cached by size and no more than a page of what was asked for since the last step is
// still there, what was committed beside it is given back then, when the next step begins: who needs so much has the region's bytes from then on. Once; and never again
// if somebody is in the next one's way after it.
//
// Threads: under the allocator's lock. Cost: take_cached and keep touch the piece and one line; a warm take and give the piece, its neighbours
// and two bins; no device call.
// Failure: take() is nullptr and nothing is held; `missing_bytes` then says by how much the cap was missed.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

#include "allocator/arena.hpp"
#include "allocator/free_index.hpp"
#include "allocator/live_table.hpp"
#include "allocator/piece.hpp"
#include "allocator/piece_cache.hpp"
#include "allocator/planned_region.hpp"

namespace reprise {

class PieceHeap {
 public:
  // Serves [start, arena.bytes()); every size is a multiple of rounding and at least min_bytes.
  PieceHeap(Arena& arena, std::size_t start, std::size_t min_bytes, bool caches);
  PieceHeap(const PieceHeap&) = delete;
  PieceHeap& operator=(const PieceHeap&) = delete;

  // For the fast path: a stack's pieces may be popped while it has that size. keep() == false: nothing happened, ask give().
  PieceCache::Stack& stack_for(std::size_t bytes) noexcept { return cache_.stack_for(bytes); }
  bool keep(Piece* piece) noexcept {
    PieceCache::Stack& stack = *piece->stack;
    if (stack.bytes != piece->bytes || stack.count == PieceCache::kDepth) return false;
    piece->requested = 0;
    stack.pieces[stack.count++] = piece;
    return true;
  }
  void never_keep(Piece* piece) noexcept { piece->stack = &no_stack_; }

  Piece* take(std::size_t bytes, StreamId stream) noexcept;
  void give(Piece* piece) noexcept;  // to the cache or, where that has no room, to the index
  bool give_cached() noexcept;       // what is cached joins its free neighbours; true: there was something
  Piece* find(std::size_t offset) const noexcept { return table_.find(offset); }

  // Gives back up to `bytes` (rounded up to pages) of free memory, after the streams that freed it have passed. Returns bytes given. What is left of it is
  // `stream`'s: what is cut off a piece and joined again later must not have gone to another one meanwhile (P4).
  std::size_t trim(std::size_t bytes, StreamId stream = 0) noexcept;

  // False: no room for the region, or sizes that are not this heap's; nothing is planned then.
  bool begin_planned(const std::shared_ptr<const PlannedStep>& step) noexcept;
  bool end_planned() noexcept;  // true: a step was followed, or parked
  bool park() noexcept;         // true: a step was followed
  bool planning() const noexcept { return planned_.active() && !parked_; }
  Piece* take_planned(std::size_t bytes) noexcept {
    if (planned_.exact(bytes) || planned_.any_near(bytes)) return take_planned();
    if (Piece* const piece = planned_.take_back(bytes)) return piece;
    if (planned_.overdue()) end_planned();
    return nullptr;
  }
  Piece* take_hit(std::size_t bytes) noexcept { return planned_.exact(bytes) ? take_planned() : nullptr; }  // no other piece is looked at, or passed over
  void give_planned(Piece* piece) noexcept;
  const PlannedRegion& planned() const noexcept { return planned_; }

  bool caches() const { return caches_; }
  std::size_t used_bytes() const { return used_bytes_; }
  std::size_t cached_bytes() const;
  std::size_t address_bytes() const { return top_ - start_; }
  template <class Visit>
  void visit(Visit&& visit_piece) const {
    for (const Piece* piece = first_; piece != nullptr; piece = piece->after) {
      piece->state == PieceState::kRegion ? visit_region(*piece, visit_piece) : visit_piece(*piece);
    }
  }
  std::string check() const;

 private:
  static constexpr int kMostHoled = 16;              // pieces that are looked at for a stretch without holes
  static constexpr std::size_t kMostStrangers = 16;  // pieces that may stay in a region that is claimed
  static constexpr std::size_t kLobby = 64;
  static constexpr unsigned kStepsBeforeAMove = 4;  // where something new stays behind after every step, moving every time would cost its pages
  template <class Visit>
  void visit_region(const Piece& region, Visit&& visit_piece) const {  // its live pieces, and what is free between them
    Piece gap;
    gap.state = PieceState::kFree;
    gap.offset = region.offset;
    const auto show_gap = [&](std::size_t end) {
      gap.bytes = end - gap.offset;
      if (gap.bytes != 0) visit_piece(static_cast<const Piece&>(gap));
    };
    for (const Piece* piece : planned_.live()) {
      show_gap(piece->offset);
      visit_piece(*piece);
      gap.offset = piece->offset + piece->bytes;
    }
    show_gap(region.offset + region.bytes);
  }
  struct Stream {
    FreeIndex full;
    FreeIndex holed;
  };
  Stream* stream_of(StreamId id) noexcept;
  void give_to_index(Piece* piece) noexcept;
  Piece* take_full(Stream& own, std::size_t bytes) noexcept;
  std::size_t give_back(std::size_t bytes, StreamId stream) noexcept;
  bool claim(const std::shared_ptr<const PlannedStep>& step) noexcept;
  std::size_t lobby_limit() const noexcept { return std::max(region_->bytes / kLobby, 2 * arena_.page_bytes()); }
  void sweep_lobby() noexcept;
  Piece* take_stretch(Stream& own, std::size_t bytes) noexcept;
  std::size_t stretch_in(const Piece& piece, std::size_t bytes) const noexcept;
  void insert_free(Piece* piece) noexcept;
  void erase_free(Piece* piece) noexcept;
  Piece* absorb(Piece* piece) noexcept;
  void join(Piece* left, Piece* right) noexcept;
  Piece* carve(Piece* piece, std::size_t bytes) noexcept;
  Piece* grow(std::size_t bytes, StreamId stream) noexcept;
  Piece* from_idle_stream(std::size_t bytes, StreamId stream) noexcept;
  bool fill_holes(Piece* piece) noexcept;
  bool wait_for_streams() noexcept;
  void relabel_all(StreamId stream) noexcept;
  void retract_top() noexcept;
  PageRange own_pages(const Piece& piece) const;
  std::size_t trim_index(FreeIndex& index, std::size_t pages) noexcept;
  Piece* finish(Piece* piece, StreamId stream) noexcept;
  void recount_free(Piece* piece) noexcept;
  struct Claim {
    Piece* first = nullptr;  // of the pieces that the region touches
    std::size_t strangers = 0;
  };
  bool opens_the_region_for(std::size_t bytes) noexcept;
  bool claim_free(const std::shared_ptr<const PlannedStep>& step) noexcept;
  bool claim_taken(Piece* piece) noexcept;
  bool can_claim(std::size_t base, const PlannedStep& step, Claim& claim) noexcept;
  bool reaches(std::size_t end) noexcept;
  bool claim_here(const std::shared_ptr<const PlannedStep>& step, std::size_t most_strangers) noexcept;
  bool claim_anywhere(const std::shared_ptr<const PlannedStep>& step) noexcept;
  Piece* replace_by_region(Piece* first, std::size_t base, std::size_t bytes, Piece*& live) noexcept;
  void split(Piece* piece, std::size_t bytes) noexcept;
  Piece* mark_as_region(Piece* piece) noexcept;
  Piece* take_planned() noexcept;
  Piece* tile(Piece* before, std::size_t offset, std::size_t end) noexcept;
  void dissolve(const std::vector<Piece*>& live) noexcept;
  std::string check_piece(const Piece& piece) const;
  std::string check_cache() const;
  std::string check_planned() const;

  Arena& arena_;
  std::size_t start_;
  std::size_t top_;
  LiveTable table_;
  PiecePool pool_;
  bool caches_;
  PieceCache cache_;
  PieceCache::Stack no_stack_;
  Piece* first_ = nullptr;
  Piece* last_ = nullptr;
  std::size_t used_bytes_ = 0;
  PlannedRegion planned_;
  Piece* region_ = nullptr;
  std::size_t region_base_ = kNoCap;  // where the last region was: what repeats comes back there
  bool parked_ = false;
  std::size_t lobby_bytes_ = 0;         // committed outside while it was parked, since it moved or memory was given back
  bool swept_ = false, sweeps_ = true;  // since then; ever again
  std::size_t carried_bytes_ = 0;       // asked for between the last step and the next one, and still there
  std::uint32_t step_number_ = 1;       // in the slot of what is counted there
  unsigned steps_here_ = 0;             // served there since it moved
  std::unique_ptr<Stream> own_stream_;  // stream 0, found without a lookup
  std::unordered_map<StreamId, std::unique_ptr<Stream>> other_streams_;
};

}  // namespace reprise
