// PieceHeap: the region of a planned step. Claimed, it is one piece of the heap; given back, it is as many as there are.
#include <algorithm>
#include <bit>

#include "allocator/piece_heap.hpp"

namespace reprise {

// Where the last region was, if nobody moved in; else where there is room without a device call; else among a few that stay, if it moved lately.
bool PieceHeap::begin_planned(const std::shared_ptr<const PlannedStep>& step) noexcept {
  end_planned();
  if (step == nullptr || step->region_bytes() == 0) return false;
  give_cached();
  const bool claimed = claim(step);
  carried_bytes_ = 0;
  ++step_number_;
  return claimed;
}

bool PieceHeap::claim(const std::shared_ptr<const PlannedStep>& step) noexcept {
  if (claim_here(step, 0)) {
    sweep_lobby();
    return true;
  }
  if (swept_) sweeps_ = false;
  if (claim_free(step)) return true;
  if (steps_here_ < kStepsBeforeAMove && claim_here(step, kMostStrangers)) return true;
  return claim_anywhere(step) || claim_here(step, kMostStrangers);
}

// Addresses up to `end` belong to pieces: free ones are added at the top. False: there are none, or a piece would not touch the others.
bool PieceHeap::reaches(std::size_t end) noexcept {
  if (end <= top_) return true;
  if (end > arena_.bytes() || last_ == nullptr) return false;
  const std::size_t own = last_->state == PieceState::kFree && last_->stream == 0 ? last_->bytes : 0;
  Piece* const piece = grow(end - top_ + own, 0);
  if (piece == nullptr) return false;
  insert_free(piece);
  return true;
}

bool PieceHeap::can_claim(std::size_t base, const PlannedStep& step, Claim& claim) noexcept {
  const std::size_t end = base + step.region_bytes();
  if (base > top_ || !reaches(end)) return false;
  Piece* piece = last_;
  while (piece != nullptr && piece->offset > base) piece = piece->before;
  claim.first = piece;
  for (; piece != nullptr && piece->offset < end; piece = piece->after) {
    if (piece->stream != 0) return false;
    if (piece->state == PieceState::kFree) continue;
    if (piece->offset < base || piece->offset + piece->bytes > end) return false;
    ++claim.strangers;
  }
  return claim.first != nullptr;
}

bool PieceHeap::claim_here(const std::shared_ptr<const PlannedStep>& step, std::size_t most_strangers) noexcept {
  if (region_base_ == kNoCap || !pool_.ensure(4)) return false;
  Claim claim;
  const bool can = can_claim(region_base_, *step, claim) && claim.strangers <= most_strangers;
  if (!can || !planned_.prepare(step, claim.strangers) || !pool_.ensure(4 + 2 * claim.strangers)) {
    retract_top();
    return false;
  }
  Piece* live = nullptr;
  region_ = replace_by_region(claim.first, region_base_, step->region_bytes(), live);
  planned_.begin(region_base_);
  while (live != nullptr) {
    Piece* const piece = live;
    live = piece->bin_next;
    never_keep(piece);  // while the region is parked others are cached: this one is not among the heap's pieces, so it must go back by give_planned()
    planned_.adopt(piece);
  }
  // What is free elsewhere (an optimizer's, whose step found no region) is not needed beside it.
  if (region_->holes != 0) trim(region_->holes * arena_.page_bytes());
  const bool filled = fill_holes(region_);
  recount_free(region_->before);  // may share the first page
  if (!filled) end_planned();
  steps_here_ += filled ? 1 : 0;
  return filled;
}

// Cuts a free piece in two free ones: they are neighbours until one of them is taken.
void PieceHeap::split(Piece* piece, std::size_t bytes) noexcept {
  erase_free(piece);
  carve(piece, bytes);
  piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
  insert_free(piece);
}

// One piece for all that lies in [base, base + bytes); what of it is live comes back as a list. A free piece that reaches over an end is cut.
Piece* PieceHeap::replace_by_region(Piece* first, std::size_t base, std::size_t bytes, Piece*& live) noexcept {
  const std::size_t end = base + bytes;
  if (first->offset < base) {
    split(first, base - first->offset);
    first = first->after;
  }
  Piece* const region = pool_.take();
  region->offset = base;
  region->bytes = bytes;
  region->stream = 0;
  region->before = first->before;
  Piece* piece = first;
  while (piece != nullptr && piece->offset < end) {
    if (piece->offset + piece->bytes > end) split(piece, end - piece->offset);
    Piece* const next = piece->after;
    if (piece->state == PieceState::kFree) {
      erase_free(piece);
      pool_.give(piece);
    } else {
      piece->bin_next = live;
      live = piece;
    }
    piece = next;
  }
  region->after = piece;
  (region->before != nullptr ? region->before->after : first_) = region;
  (region->after != nullptr ? region->after->before : last_) = region;
  return mark_as_region(region);
}

Piece* PieceHeap::mark_as_region(Piece* piece) noexcept {
  piece->state = PieceState::kRegion;
  piece->requested = 0;
  piece->stack = &no_stack_;
  piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
  return piece;
}

// In a free piece that is full: no device call.
bool PieceHeap::claim_free(const std::shared_ptr<const PlannedStep>& step) noexcept {
  if (own_stream_->full.best_fit(step->region_bytes()) == nullptr) return false;
  return planned_.prepare(step, 0) && claim_taken(take(step->region_bytes(), 0));
}

bool PieceHeap::claim_anywhere(const std::shared_ptr<const PlannedStep>& step) noexcept {
  const bool first = region_base_ == kNoCap;
  if (!first) trim(kNoCap);  // what the region held where it was is wanted where it goes
  if (!planned_.prepare(step, 0) || !claim_taken(take(step->region_bytes(), 0))) return false;
  steps_here_ = first ? kStepsBeforeAMove : 0;  // the first place is no move
  return true;
}

bool PieceHeap::claim_taken(Piece* piece) noexcept {
  if (piece == nullptr) return false;
  used_bytes_ -= piece->bytes;
  table_.set(piece->offset, nullptr);
  region_ = mark_as_region(piece);
  region_base_ = piece->offset;
  lobby_bytes_ = 0;
  swept_ = false;
  planned_.begin(region_base_);
  return true;
}

// What overflows the lobby (an optimizer's temporaries) is served from the region from then on: what was committed for it before is not wanted any more.
void PieceHeap::sweep_lobby() noexcept {
  if (caches_ || swept_ || !sweeps_ || lobby_bytes_ <= lobby_limit() || carried_bytes_ > arena_.page_bytes()) return;
  swept_ = true;
  give_back(kNoCap, 0);
  lobby_bytes_ = lobby_limit() - 2 * arena_.page_bytes();  // room for what is small
}

// Offset and size are the plan's, so nothing is searched or cut.
Piece* PieceHeap::take_planned() noexcept {
  if (!pool_.ensure(2 * planned_.live_count() + 8)) return nullptr;  // what end_planned() will need
  Piece* const piece = pool_.take();
  piece->offset = planned_.next_offset();
  piece->bytes = planned_.next_bytes();
  if (!table_.set(piece->offset, piece)) {
    pool_.give(piece);
    return nullptr;
  }
  piece->stream = 0;
  piece->state = PieceState::kUsed;
  piece->recorded = false;
  piece->size_class = static_cast<std::uint8_t>(std::bit_width(piece->bytes - 1));
  piece->stack = &no_stack_;
  used_bytes_ += piece->bytes;
  planned_.put(piece);
  return piece;
}

void PieceHeap::give_planned(Piece* piece) noexcept {
  table_.set(piece->offset, nullptr);
  used_bytes_ -= piece->bytes;
  planned_.remove(piece);
  pool_.give(piece);
}

bool PieceHeap::park() noexcept {
  if (!planning()) return false;
  while (Piece* const piece = planned_.any_held()) give_to_index(piece);
  parked_ = true;
  return true;
}

// While it is parked: a request that would commit memory. True: it may look once more, for the region's bytes are everybody's now.
bool PieceHeap::opens_the_region_for(std::size_t bytes) noexcept {
  if (!parked_) return false;
  const std::size_t page = arena_.page_bytes();
  lobby_bytes_ += (bytes + page - 1) / page * page;
  return lobby_bytes_ > lobby_limit() && end_planned();
}

bool PieceHeap::end_planned() noexcept {
  if (!planned_.active()) return false;
  parked_ = false;
  while (Piece* const piece = planned_.any_held()) give_to_index(piece);
  dissolve(planned_.end());
  return true;
}

// A free piece over [offset, end), after `before`; nothing where that is empty. In no index yet.
Piece* PieceHeap::tile(Piece* before, std::size_t offset, std::size_t end) noexcept {
  if (offset == end) return before;
  Piece* const gap = pool_.take();
  gap->offset = offset;
  gap->bytes = end - offset;
  gap->stream = 0;
  gap->state = PieceState::kFree;
  gap->before = before;
  (before != nullptr ? before->after : first_) = gap;
  return gap;
}

void PieceHeap::dissolve(const std::vector<Piece*>& live) noexcept {
  Piece* const after = region_->after;
  Piece* before = region_->before;
  std::size_t offset = region_->offset;
  const std::size_t end = offset + region_->bytes;
  Piece* const left = before;
  pool_.give(region_);
  region_ = nullptr;
  for (Piece* const piece : live) {
    before = tile(before, offset, piece->offset);
    piece->before = before;
    (before != nullptr ? before->after : first_) = piece;
    piece->slot = 0;
    if (!piece->recorded && caches_) piece->stack = &cache_.stack_for(piece->bytes);
    before = piece;
    offset = piece->offset + piece->bytes;
  }
  before = tile(before, offset, end);
  before->after = after;
  (after != nullptr ? after->before : last_) = before;
  for (Piece* piece = left != nullptr ? left->after : first_; piece != after;) {
    Piece* const next = piece->after;
    if (piece->state == PieceState::kFree) {
      piece = absorb(piece);
      piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
      insert_free(piece);
      if (next == after) break;  // which may be a part of it now
    }
    piece = next;
  }
  retract_top();
}

}  // namespace reprise
