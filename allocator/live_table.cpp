#include "allocator/live_table.hpp"

#include <bit>
#include <cstdlib>
#include <new>

namespace reprise {

LiveTable::LiveTable(std::size_t arena_bytes, std::size_t min_bytes)
    : block_shift_(static_cast<unsigned>(std::bit_width(min_bytes) - 1)),
      empty_leaf_(static_cast<Piece**>(std::calloc(kLeafEntries, sizeof(empty_leaf_[0])))),
      leaf_count_((arena_bytes >> (block_shift_ + kLeafBits)) + 1),
      leaves_(std::make_unique<std::atomic<Piece**>[]>(leaf_count_)) {
  if (empty_leaf_ == nullptr) throw std::bad_alloc();
  for (std::size_t i = 0; i < leaf_count_; ++i) leaves_[i].store(empty_leaf_.get(), std::memory_order_relaxed);
}

LiveTable::~LiveTable() {
  for (std::size_t i = 0; i < leaf_count_; ++i) {
    if (Piece** const leaf = leaves_[i].load(std::memory_order_relaxed); leaf != empty_leaf_.get()) std::free(leaf);
  }
}

bool LiveTable::set_in_new_leaf(std::size_t offset, Piece* piece) noexcept {
  const std::size_t block = offset >> block_shift_;
  auto* const leaf = static_cast<Piece**>(std::calloc(kLeafEntries, sizeof(Piece*)));
  if (leaf == nullptr) return false;
  leaf[block & (kLeafEntries - 1)] = piece;
  leaves_[block >> kLeafBits].store(leaf, std::memory_order_release);
  return true;
}

}  // namespace reprise
