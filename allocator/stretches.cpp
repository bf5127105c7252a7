#include <algorithm>

#include "allocator/caching_allocator.hpp"

namespace reprise {

namespace {

// The committed parts of [first, last), which is free: one stretch for each run of committed pages.
void add_free(std::vector<Stretch>& all, const Arena& arena, std::size_t first, std::size_t last, StreamId stream) {
  const std::size_t page = arena.page_bytes(), before = all.size();
  for (std::size_t at = first; at < last;) {
    const std::size_t next = std::min(last, (at / page + 1) * page);
    if (arena.uncommitted_in({at / page, at / page + 1}) == 0) {
      const bool continues = all.size() > before && all.back().first + all.back().bytes == arena.base() + at;
      if (!continues) all.push_back({arena.base() + at, 0, 0, stream, Stretch::State::kFree});
      all.back().bytes += next - at;
    }
    at = next;
  }
}

}  // namespace

std::vector<Stretch> CachingAllocator::stretches() const {
  std::vector<Stretch> all;
  const Hold hold(lock_);
  std::size_t top = small_zone_bytes_;
  heap_.visit([&](const Piece& piece) {
    top = piece.offset + piece.bytes;
    const bool live = piece.requested != 0, pending = piece.state == PieceState::kPending;
    if (!live && !pending) return add_free(all, arena_, piece.offset, top, piece.stream);
    all.push_back({arena_.base() + piece.offset, piece.bytes, piece.requested, piece.stream, live ? Stretch::State::kLive : Stretch::State::kPending});
  });
  const std::size_t page = arena_.page_bytes();
  add_free(all, arena_, top, (top + page - 1) / page * page, 0);  // the last page may be used in part
  return all;
}

}  // namespace reprise
