// Piece: a stretch of the arena that is handed to one tensor, or free. Kept out of band: user pages hold no metadata.
//
// P1: pieces of a heap, but for planned ones, tile [start, top): piece.after->offset == piece.offset + piece.bytes, none is empty
// P2: two free pieces of one stream are never neighbours
// P3: a free piece is in exactly one index, by its state and stream; holes == uncommitted pages that touch it
// P4: an uncommitted page below the top lies wholly inside one free piece, so every page of a used piece is committed
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "allocator/device.hpp"
#include "allocator/piece_cache.hpp"
#include "allocator/types.hpp"

namespace reprise {

// kUsed: live, or in the cache. kRegion: its bytes are handed out by a PlannedRegion.
enum class PieceState : std::uint8_t { kSpare, kFree, kUsed, kPending, kRegion };

struct Piece {
  std::size_t offset = 0;     // from the arena's base
  std::size_t bytes = 0;      // rounded
  std::size_t requested = 0;  // 0 unless live
  std::atomic<Tag> tag{};
  StreamId stream = 0;
  PieceState state = PieceState::kSpare;
  bool recorded = false;  // other streams were recorded on it
  std::uint8_t size_class = 0;
  bool planned = false;                // lies in a PlannedRegion: in its lists, not among the pieces that tile the heap
  PieceCache::Stack* stack = nullptr;  // where it is cached when freed; one without a size: not at all
  Piece* before = nullptr;             // neighbours by address
  Piece* after = nullptr;
  Piece* bin_previous = nullptr;
  Piece* bin_next = nullptr;
  std::size_t holes = 0;   // free pieces only
  std::uint32_t slot = 0;  // of planned ones; of others before which step they were asked for, 0: within one
};

// Hands out piece records; stable addresses, never returned before the pool dies. Throws nothing: nullptr when memory is out.
class PiecePool {
 public:
  Piece* take() noexcept {
    if (spare_ == nullptr && !grow()) return nullptr;
    Piece* piece = spare_;
    spare_ = piece->after;
    --spare_count_;
    piece->after = nullptr;
    return piece;
  }
  void give(Piece* piece) noexcept {
    piece->state = PieceState::kSpare;
    piece->requested = 0;
    piece->before = piece->bin_previous = piece->bin_next = nullptr;
    piece->after = spare_;
    spare_ = piece;
    ++spare_count_;
  }
  bool ensure(std::size_t count) noexcept {
    while (spare_count_ < count) {
      if (!grow()) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kChunk = 256;
  bool grow() noexcept {
    try {
      chunks_.push_back(std::make_unique<Piece[]>(kChunk));
    } catch (...) {
      return false;
    }
    for (std::size_t i = kChunk; i-- > 0;) give(&chunks_.back()[i]);
    return true;
  }
  std::vector<std::unique_ptr<Piece[]>> chunks_;
  Piece* spare_ = nullptr;
  std::size_t spare_count_ = 0;
};

}  // namespace reprise
