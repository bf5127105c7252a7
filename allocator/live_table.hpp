// LiveTable: from the address of a used piece to its record, readable without the lock by whoever owns the pointer.
//
// L1: table[piece.offset] == &piece exactly for the used and pending pieces
// Every used piece is at least min_bytes long, so at most one starts in each block of that many bytes: one entry per block.
//
// Threads: set under the lock; find() by the owner of the pointer (only its own entry is read). Cost: two dependent loads.
// Failure: set() is false when memory for a leaf is out;
// the constructor throws bad_alloc.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>

#include "allocator/piece.hpp"

namespace reprise {

class LiveTable {
 public:
  LiveTable(std::size_t arena_bytes, std::size_t min_bytes);
  ~LiveTable();
  LiveTable(const LiveTable&) = delete;
  LiveTable& operator=(const LiveTable&) = delete;

  bool set(std::size_t offset, Piece* piece) noexcept {  // nullptr clears
    const std::size_t block = offset >> block_shift_;
    Piece** const leaf = leaves_[block >> kLeafBits].load(std::memory_order_relaxed);
    if (leaf == empty_leaf_.get()) return set_in_new_leaf(offset, piece);
    leaf[block & (kLeafEntries - 1)] = piece;
    return true;
  }
  Piece* find(std::size_t offset) const noexcept {
    const std::size_t block = offset >> block_shift_;
    return leaves_[block >> kLeafBits].load(std::memory_order_acquire)[block & (kLeafEntries - 1)];
  }

 private:
  bool set_in_new_leaf(std::size_t offset, Piece* piece) noexcept;
  struct Free {
    void operator()(Piece** leaf) const { std::free(leaf); }
  };
  static constexpr unsigned kLeafBits = 16;
  static constexpr std::size_t kLeafEntries = std::size_t{1} << kLeafBits;
  unsigned block_shift_;
  std::unique_ptr<Piece*[], Free> empty_leaf_;  // what is not there yet: nothing, everywhere
  std::size_t leaf_count_;
  std::unique_ptr<std::atomic<Piece**>[]> leaves_;
};

}  // namespace reprise
