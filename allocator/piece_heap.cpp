#include "allocator/piece_heap.hpp"

#include <algorithm>
#include <bit>

namespace reprise {

PieceHeap::PieceHeap(Arena& arena, std::size_t start, std::size_t min_bytes, bool caches)
    : arena_(arena), start_(start), top_(start), table_(arena.bytes(), min_bytes), caches_(caches), own_stream_(std::make_unique<Stream>()) {}

PieceHeap::Stream* PieceHeap::stream_of(StreamId id) noexcept {
  if (id == 0) return own_stream_.get();
  const auto found = other_streams_.find(id);
  if (found != other_streams_.end()) return found->second.get();
  try {
    return other_streams_.emplace(id, std::make_unique<Stream>()).first->second.get();
  } catch (...) {
    return nullptr;
  }
}

void PieceHeap::insert_free(Piece* piece) noexcept {
  Stream* stream = stream_of(piece->stream);  // exists: the piece was taken from it
  (piece->holes == 0 ? stream->full : stream->holed).insert(piece);
}

void PieceHeap::erase_free(Piece* piece) noexcept {
  Stream* stream = stream_of(piece->stream);
  (piece->holes == 0 ? stream->full : stream->holed).erase(piece);
}

// Makes `right` a part of `left`; neither is in an index.
void PieceHeap::join(Piece* left, Piece* right) noexcept {
  left->bytes += right->bytes;
  left->holes += right->holes;
  left->after = right->after;
  (right->after != nullptr ? right->after->before : last_) = left;
  pool_.give(right);
}

// Joins a free piece that is in no index with its free neighbours of the same stream.
Piece* PieceHeap::absorb(Piece* piece) noexcept {
  if (Piece* right = piece->after; right != nullptr && right->state == PieceState::kFree && right->stream == piece->stream) {
    erase_free(right);
    join(piece, right);
  }
  if (Piece* left = piece->before; left != nullptr && left->state == PieceState::kFree && left->stream == piece->stream) {
    erase_free(left);
    join(left, piece);
    piece = left;
  }
  return piece;
}

// Cuts the first `bytes` off a free piece that is in no index; the rest goes to the index. The pool was asked for a spare before.
Piece* PieceHeap::carve(Piece* piece, std::size_t bytes) noexcept {
  if (piece->bytes == bytes) return piece;
  Piece* rest = pool_.take();
  rest->offset = piece->offset + bytes;
  rest->bytes = piece->bytes - bytes;
  rest->stream = piece->stream;
  rest->state = PieceState::kFree;
  rest->before = piece;
  rest->after = piece->after;
  (rest->after != nullptr ? rest->after->before : last_) = rest;
  piece->after = rest;
  piece->bytes = bytes;
  rest->holes = piece->holes == 0 ? 0 : arena_.uncommitted_in(arena_.touching(rest->offset, rest->bytes));
  insert_free(rest);
  return piece;
}

// A free piece of at least `bytes` at the end of the addresses, in no index: the free piece that ends there plus fresh ones.
Piece* PieceHeap::grow(std::size_t bytes, StreamId stream) noexcept {
  Piece* end = last_ != nullptr && last_->state == PieceState::kFree && last_->stream == stream ? last_ : nullptr;
  if (end != nullptr && end->bytes >= bytes) {  // the index looks at a bounded number of pieces
    erase_free(end);
    return end;
  }
  const std::size_t fresh = bytes - (end != nullptr ? end->bytes : 0);
  if (fresh > arena_.bytes() - top_) return nullptr;
  if (end != nullptr) {
    erase_free(end);
    end->bytes = bytes;
  } else {
    end = pool_.take();
    end->offset = top_;
    end->bytes = bytes;
    end->stream = stream;
    end->state = PieceState::kFree;
    end->before = last_;
    (last_ != nullptr ? last_->after : first_) = end;
    last_ = end;
  }
  top_ += fresh;
  end->holes = arena_.uncommitted_in(arena_.touching(end->offset, end->bytes));
  return end;
}

// A full piece of a stream that has passed all its work. Takes it out of its index and hands it to `stream`.
Piece* PieceHeap::from_idle_stream(std::size_t bytes, StreamId stream) noexcept {
  const auto take_if_idle = [&](StreamId id, Stream& other) -> Piece* {
    Piece* piece = id == stream ? nullptr : other.full.best_fit(bytes);
    if (piece == nullptr) return nullptr;
    const auto fence = arena_.device().record_fence(id);
    if (!fence || !arena_.device().passed(*fence)) return nullptr;
    other.full.erase(piece);
    piece->stream = stream;
    return absorb(piece);  // may have found neighbours of the new stream
  };
  if (Piece* piece = take_if_idle(0, *own_stream_)) return piece;
  for (auto& [id, other] : other_streams_) {
    if (Piece* piece = take_if_idle(id, *other)) return piece;
  }
  return nullptr;
}

// Waits until every stream with free pieces has passed. False when a fence could not be recorded.
bool PieceHeap::wait_for_streams() noexcept {
  bool all_passed = true;
  const auto wait_for = [&](StreamId id, const Stream& stream) {
    if (stream.full.empty() && stream.holed.empty()) return;
    if (const auto fence = arena_.device().record_fence(id)) {
      arena_.device().wait(*fence);
    } else {
      all_passed = false;
    }
  };
  wait_for(0, *own_stream_);
  for (auto& [id, stream] : other_streams_) wait_for(id, *stream);
  return all_passed;
}

void PieceHeap::relabel_all(StreamId stream) noexcept {
  for (Piece* piece = first_; piece != nullptr; piece = piece->after) {
    if (piece->state != PieceState::kFree || piece->stream == stream) continue;
    erase_free(piece);
    piece->stream = stream;
    piece = absorb(piece);
    insert_free(piece);
  }
}

// After the last piece lost pages: the top goes down to its last committed page.
void PieceHeap::retract_top() noexcept {
  if (last_ == nullptr || last_->state != PieceState::kFree || last_->holes == 0) return;
  Piece* piece = last_;
  erase_free(piece);
  const std::size_t end = arena_.last_committed(arena_.touching(piece->offset, piece->bytes)) * arena_.page_bytes();
  top_ = std::clamp(end, piece->offset, top_);
  piece->bytes = top_ - piece->offset;
  if (piece->bytes != 0) {
    piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
    insert_free(piece);
    return;
  }
  last_ = piece->before;
  (last_ != nullptr ? last_->after : first_) = nullptr;
  pool_.give(piece);
}

// Pages that no other piece touches; behind the last piece there is none.
PageRange PieceHeap::own_pages(const Piece& piece) const {
  PageRange pages = arena_.inside(piece.offset, piece.bytes);
  if (&piece == last_) pages.last = arena_.touching(piece.offset, piece.bytes).last;
  return {pages.first, std::max(pages.first, pages.last)};
}

// Gives back pages of an index's pieces, largest first. What was looked at is set aside, so that a page the device refuses is asked once.
std::size_t PieceHeap::trim_index(FreeIndex& index, std::size_t pages) noexcept {
  std::size_t given = 0;
  Piece* aside = nullptr;
  while (given < pages && !index.empty()) {
    Piece* piece = index.largest_bin();
    index.erase(piece);
    given += arena_.decommit(own_pages(*piece), pages - given);
    piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
    piece->bin_next = aside;
    aside = piece;
  }
  while (aside != nullptr) {
    Piece* piece = aside;
    aside = piece->bin_next;
    insert_free(piece);
  }
  return given;
}

std::size_t PieceHeap::trim(std::size_t bytes, StreamId stream) noexcept {
  lobby_bytes_ = 0;
  swept_ = false;
  return give_back(bytes, stream);
}

std::size_t PieceHeap::give_back(std::size_t bytes, StreamId stream) noexcept {
  Stream* const own = stream_of(stream);
  give_cached();
  if (own == nullptr || !wait_for_streams()) return 0;
  if (!other_streams_.empty()) relabel_all(stream);  // pages shared by free pieces of two streams become whole
  const std::size_t page = arena_.page_bytes();
  const std::size_t pages = bytes / page + (bytes % page != 0);
  std::size_t given = trim_index(own->holed, pages);
  if (given < pages) given += trim_index(own->full, pages - given);
  retract_top();
  return given * page;
}

// Its holes, after a neighbour committed a page that both touch.
void PieceHeap::recount_free(Piece* piece) noexcept {
  if (piece == nullptr || piece->state != PieceState::kFree) return;
  erase_free(piece);
  piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
  insert_free(piece);
}

// Commits the pages of a piece that is in no index, giving back others where the cap asks for it.
bool PieceHeap::fill_holes(Piece* piece) noexcept {
  if (piece->holes == 0) return true;
  const PageRange pages = arena_.touching(piece->offset, piece->bytes);
  CommitResult result = arena_.commit(pages);
  if (result != CommitResult::kDone) {
    // Over the cap: as much as is missing. The device refused: everything, which may be what it lacks.
    trim(result == CommitResult::kOverCap ? arena_.over_cap_by(pages) : kNoCap, piece->stream);
    result = arena_.commit(pages);
  }
  recount_free(piece->after);  // may share the last page
  piece->holes = result == CommitResult::kDone ? 0 : arena_.uncommitted_in(pages);
  return result == CommitResult::kDone;
}

Piece* PieceHeap::finish(Piece* piece, StreamId stream) noexcept {
  // used while its pages are committed, so that giving back others passes over it
  piece->state = PieceState::kUsed;
  piece->stream = stream;
  piece->size_class = static_cast<std::uint8_t>(std::bit_width(piece->bytes - 1));
  piece->stack = caches_ && stream == 0 ? &cache_.stack_for(piece->bytes) : &no_stack_;
  used_bytes_ += piece->bytes;
  if (fill_holes(piece) && table_.set(piece->offset, piece)) {
    piece->slot = planning() ? 0 : step_number_;
    if (!planning()) carried_bytes_ += piece->bytes;
    return piece;
  }
  used_bytes_ -= piece->bytes;
  piece->state = PieceState::kFree;
  piece = absorb(piece);
  piece->holes = arena_.uncommitted_in(arena_.touching(piece->offset, piece->bytes));
  insert_free(piece);
  retract_top();
  return nullptr;
}

// The smallest full piece, out of the index. What the cache holds may, joined with its neighbours, be one.
Piece* PieceHeap::take_full(Stream& own, std::size_t bytes) noexcept {
  Piece* piece = own.full.best_fit(bytes);
  if (piece == nullptr && give_cached()) piece = own.full.best_fit(bytes);
  if (piece != nullptr) own.full.erase(piece);
  return piece;
}

// Where in a free piece with holes so many bytes lie on committed pages; kNoCap: nowhere.
std::size_t PieceHeap::stretch_in(const Piece& piece, std::size_t bytes) const noexcept {
  const PageRange pages = arena_.touching(piece.offset, piece.bytes);
  if ((pages.count() - piece.holes) * arena_.page_bytes() < bytes) return kNoCap;
  for (PageRange run = arena_.committed_run(pages, pages.first); run.count() != 0; run = arena_.committed_run(pages, run.last)) {
    const std::size_t begin = std::max(piece.offset, run.first * arena_.page_bytes());
    const std::size_t end = std::min(piece.offset + piece.bytes, run.last * arena_.page_bytes());
    if (begin + bytes <= end) return begin;
  }
  return kNoCap;
}

// What was freed between given back pages lies in one piece with them: found there it costs no device call. Out of the index, and at its beginning.
Piece* PieceHeap::take_stretch(Stream& own, std::size_t bytes) noexcept {
  std::size_t begin = kNoCap;
  Piece* piece = own.holed.find(bytes, kMostHoled, [&](const Piece& one) { return (begin = stretch_in(one, bytes)) != kNoCap; });
  if (piece == nullptr) return nullptr;
  if (begin != piece->offset) {
    split(piece, begin - piece->offset);
    piece = piece->after;
  }
  erase_free(piece);
  return piece;
}

Piece* PieceHeap::take(std::size_t bytes, StreamId stream) noexcept {
  Stream* own = stream_of(stream);
  if (own == nullptr || !pool_.ensure(6 + planned_.live_count() + 2)) return nullptr;  // end_planned() must not fail
  if (Piece* piece = take_full(*own, bytes)) return finish(carve(piece, bytes), stream);
  if (!other_streams_.empty()) {
    if (Piece* piece = from_idle_stream(bytes, stream)) return finish(carve(piece, bytes), stream);
  }
  if (Piece* piece = take_stretch(*own, bytes)) return finish(carve(piece, bytes), stream);
  if (opens_the_region_for(bytes)) return take(bytes, stream);
  for (const bool settled : {false, true}) {
    if (settled) {
      if (other_streams_.empty() || !wait_for_streams()) break;
      relabel_all(stream);
    }
    Piece* piece = settled ? own->full.best_fit(bytes) : nullptr;
    if (piece == nullptr) piece = own->holed.best_fit(bytes);
    if (piece != nullptr) {
      erase_free(piece);
    } else {
      piece = grow(bytes, stream);
    }
    if (piece == nullptr) continue;
    if (Piece* done = finish(carve(piece, bytes), stream)) return done;
  }
  return nullptr;
}

void PieceHeap::give(Piece* piece) noexcept {
  piece->requested = 0;
  piece->recorded = false;
  if (piece->planned) return give_planned(piece);
  if (planning() && planned_.hold(piece)) return;
  if (piece->stack != &no_stack_ && !planning()) {
    cache_.claimed(piece->bytes, [this](Piece* other) { give_to_index(other); });
    if (keep(piece)) return;
  }
  give_to_index(piece);
}

void PieceHeap::give_to_index(Piece* piece) noexcept {
  table_.set(piece->offset, nullptr);
  used_bytes_ -= piece->bytes;
  if (piece->slot == step_number_) carried_bytes_ -= piece->bytes;
  piece->state = PieceState::kFree;
  piece->holes = 0;
  insert_free(absorb(piece));
}

bool PieceHeap::give_cached() noexcept {
  return caches_ && cache_.empty_all([this](Piece* piece) { give_to_index(piece); });
}

std::size_t PieceHeap::cached_bytes() const {
  std::size_t total = planned_.held_bytes();
  cache_.visit([&](const Piece& piece, std::size_t) { total += piece.bytes; });
  return total;
}

}  // namespace reprise
