#include "allocator/planned_region.hpp"

#include <algorithm>

namespace reprise {

inline void PlannedRegion::link(Piece*& head, Piece* piece) noexcept {
  piece->bin_previous = nullptr;
  piece->bin_next = head;
  if (head != nullptr) head->bin_previous = piece;
  head = piece;
}

bool PlannedRegion::prepare(std::shared_ptr<const PlannedStep> step, std::size_t strangers) noexcept {
  const std::size_t count = step->pieces().size();
  try {
    due_.assign(count + 1, nullptr);
    sorted_.reserve(count + strangers);
    held_.clear();
    for (const PlannedStep::Size& size : step->elsewhere()) held_.push_back({size.bytes, size.count, 0, nullptr});
  } catch (...) {
    return false;
  }
  step_ = std::move(step);
  return true;
}

void PlannedRegion::begin(std::size_t base) noexcept {
  pieces_ = step_->pieces().data();
  count_ = step_->pieces().size();
  base_ = base;
  next_ = beyond_ = 0;
  late_ = nullptr;
  live_count_ = live_bytes_ = 0;
}

void PlannedRegion::adopt(Piece* piece) noexcept {
  piece->planned = true;
  piece->slot = kNoSlot;
  link(list_of(*piece), piece);
  ++live_count_;
  live_bytes_ += piece->bytes;
}

std::vector<Piece*>& PlannedRegion::end() noexcept {
  sorted_.clear();
  const auto gather = [&](Piece* piece) {
    for (; piece != nullptr; piece = piece->bin_next) sorted_.push_back(piece);  // room was reserved
  };
  gather(late_);
  for (Piece* const head : due_) gather(head);
  std::sort(sorted_.begin(), sorted_.end(), [](const Piece* a, const Piece* b) { return a->offset < b->offset; });
  for (Piece* const piece : sorted_) {
    piece->planned = false;
    piece->bin_previous = piece->bin_next = nullptr;
  }
  count_ = 0;
  live_count_ = live_bytes_ = 0;
  step_.reset();
  return sorted_;
}

PlannedRegion::Held* PlannedRegion::held_of(std::size_t bytes) noexcept {
  const auto found = std::lower_bound(held_.begin(), held_.end(), bytes, [](const Held& held, std::size_t wanted) { return held.bytes < wanted; });
  return found != held_.end() && found->bytes == bytes ? &*found : nullptr;
}

Piece* PlannedRegion::pop(Held& held) noexcept {
  Piece* const piece = held.head;
  if (piece == nullptr) return nullptr;
  held.head = piece->bin_next;
  piece->bin_next = nullptr;
  --held.count;
  held_bytes_ -= held.bytes;
  return piece;
}

bool PlannedRegion::hold(Piece* piece) noexcept {
  Held* const held = piece->stream == 0 ? held_of(piece->bytes) : nullptr;
  if (held == nullptr || held->count >= held->awaited) return false;
  piece->bin_next = held->head;
  held->head = piece;
  ++held->count;
  held_bytes_ += held->bytes;
  return true;
}

Piece* PlannedRegion::take_back(std::size_t bytes) noexcept {
  Held* const held = was_elsewhere_ ? held_of(bytes) : nullptr;
  was_elsewhere_ = false;
  return held != nullptr ? pop(*held) : nullptr;
}

Piece* PlannedRegion::any_held() noexcept {
  for (Held& held : held_) {
    if (held.head != nullptr) return pop(held);
  }
  return nullptr;
}

inline Piece*& PlannedRegion::list_of(const Piece& piece) noexcept {
  if (piece.slot == kNoSlot) return late_;
  const std::size_t time = std::min<std::size_t>(pieces_[piece.slot].dies_before, count_);
  return time <= next_ && time < count_ ? late_ : due_[time];
}

// From here on `next` is expected: what is due by then and still lives is late.
inline void PlannedRegion::pass_to(std::size_t next) noexcept {
  while (next_ < next) {
    if (pieces_[next_].elsewhere) --held_of(pieces_[next_].bytes)->awaited;
    ++next_;
    if (next_ == count_) return;  // no piece is left that something could be late for
    while (Piece* const piece = due_[next_]) {
      due_[next_] = piece->bin_next;
      link(late_, piece);
    }
  }
}

bool PlannedRegion::overlaps_late(const PlannedPiece& planned) const noexcept {
  const std::size_t begin = base_ + planned.offset, end = begin + planned.bytes;
  std::size_t looked = 0;
  for (const Piece* late = late_; late != nullptr; late = late->bin_next) {
    if (++looked > kMostLate || (late->offset < end && begin < late->offset + late->bytes)) return true;
  }
  return false;
}

bool PlannedRegion::any_near(std::size_t bytes) noexcept {
  const std::size_t last = std::min(count_, next_ + kLookAhead);
  std::size_t found = next_;
  while (found < last && pieces_[found].bytes != bytes) ++found;
  if (found < last) {
    pass_to(found);
    if (!pieces_[found].elsewhere && !overlaps_late(pieces_[found])) return true;
    pass_to(found + 1);
    if (pieces_[found].elsewhere) {
      was_elsewhere_ = true;
      ++hits_;
      return false;
    }
  }
  ++misses_;
  beyond_ += next_ == count_ ? 1 : 0;
  return false;
}

void PlannedRegion::put(Piece* piece) noexcept {
  piece->planned = true;
  piece->slot = static_cast<std::uint32_t>(next_);
  link(due_[std::min<std::size_t>(pieces_[next_].dies_before, count_)], piece);  // list_of(): `next` is not late, for it dies after it was born
  ++live_count_;
  live_bytes_ += piece->bytes;
  ++hits_;
  pass_to(next_ + 1);
}

void PlannedRegion::remove(Piece* piece) noexcept {
  if (piece->bin_next != nullptr) piece->bin_next->bin_previous = piece->bin_previous;
  (piece->bin_previous != nullptr ? piece->bin_previous->bin_next : list_of(*piece)) = piece->bin_next;
  piece->planned = false;
  --live_count_;
  live_bytes_ -= piece->bytes;
}

std::vector<const Piece*> PlannedRegion::live() const {
  std::vector<const Piece*> all;
  if (!active()) return all;
  const auto gather = [&](const Piece* piece) {
    for (; piece != nullptr; piece = piece->bin_next) all.push_back(piece);
  };
  gather(late_);
  for (const Piece* const head : due_) gather(head);
  std::sort(all.begin(), all.end(), [](const Piece* a, const Piece* b) { return a->offset < b->offset; });
  return all;
}

std::string PlannedRegion::check() const {
  if (!active()) return {};
  std::size_t bytes = 0, count = 0;
  for (std::size_t time = 0; time < due_.size(); ++time) {
    for (const Piece* piece = due_[time]; piece != nullptr; piece = piece->bin_next) {
      if (time <= next_ && time < count_) return "R3: a late piece is in the list of time " + std::to_string(time);
      if (piece->slot == kNoSlot) return "R3: a piece that is nobody's is due";
      const PlannedPiece& planned = pieces_[piece->slot];
      if (std::min<std::size_t>(planned.dies_before, count_) != time) return "R3: a piece is in the list of time " + std::to_string(time);
      if (piece->offset != base_ + planned.offset || piece->bytes != planned.bytes || planned.elsewhere) return "R2: a piece is not in its place";
    }
  }
  std::size_t held_bytes = 0;
  for (const Held& held : held_) {
    for (const Piece* piece = held.head; piece != nullptr; piece = piece->bin_next) {
      if (piece->bytes != held.bytes || piece->requested != 0 || piece->state != PieceState::kUsed) return "R5: a held piece is live, or of another size";
      held_bytes += piece->bytes;
    }
  }
  if (held_bytes != held_bytes_) return "R5: held bytes are " + std::to_string(held_bytes_) + ", expected " + std::to_string(held_bytes);
  std::size_t end = base_;
  for (const Piece* piece : live()) {
    if (piece->offset < end || piece->offset + piece->bytes > base_ + step_->region_bytes()) {
      return "R2: a live piece overlaps or is outside, at offset " + std::to_string(piece->offset);
    }
    if (!piece->planned) return "R2: a live piece is not marked, at offset " + std::to_string(piece->offset);
    end = piece->offset + piece->bytes;
    bytes += piece->bytes;
    ++count;
  }
  if (bytes != live_bytes_) return "R4: live bytes are " + std::to_string(live_bytes_) + ", expected " + std::to_string(bytes);
  return count == live_count_ ? "" : "R4: live pieces are " + std::to_string(live_count_) + ", expected " + std::to_string(count);
}

}  // namespace reprise
