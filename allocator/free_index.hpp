// FreeIndex: free pieces by size, in two levels of bins (powers of two, each cut into 32) with a bitmap for each level.
//
// F1: a bin's bit is set exactly if its list is not empty
// F2: a piece is in the bin of its size
//
// Threads: under the allocator's lock. Cost: insert and erase O(1), three cache lines; best_fit O(1) plus at most kScan pieces of one bin.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

#include "allocator/piece.hpp"

namespace reprise {

class FreeIndex {
 public:
  void insert(Piece* piece) noexcept;
  void erase(Piece* piece) noexcept;
  Piece* best_fit(std::size_t bytes) const noexcept;  // the smallest of the pieces looked at that fits, or nullptr
  // The first of `most` pieces that could fit, by size of their bins, of which `good` says yes.
  template <class Good>
  Piece* find(std::size_t bytes, int most, Good&& good) const {
    const Bin first = bin_of(bytes);
    for (unsigned level = first.level; level < 64; ++level) {
      if (((levels_ >> level) & 1) == 0) continue;
      for (unsigned index = level == first.level ? first.index : 0; index < kBins; ++index) {
        for (Piece* piece = bins_[level][index]; piece != nullptr; piece = piece->bin_next) {
          if (most-- == 0) return nullptr;
          if (piece->bytes >= bytes && good(*piece)) return piece;
        }
      }
    }
    return nullptr;
  }
  Piece* largest_bin() const noexcept;  // a piece of the highest bin that is not empty, or nullptr
  bool empty() const noexcept { return levels_ == 0; }
  template <class Visit>
  void visit(Visit&& visit_piece) const {
    for (const auto& level : bins_) {
      for (Piece* head : level) {
        for (Piece* piece = head; piece != nullptr; piece = piece->bin_next) visit_piece(piece);
      }
    }
  }
  std::string check() const;

 private:
  static constexpr unsigned kLevelBits = 5;
  static constexpr std::size_t kBins = std::size_t{1} << kLevelBits;
  static constexpr int kScan = 64;
  struct Bin {
    unsigned level;
    unsigned index;
  };
  static Bin bin_of(std::size_t bytes) noexcept {
    const unsigned level = static_cast<unsigned>(std::bit_width(bytes | kBins) - 1);
    return {level, static_cast<unsigned>((bytes >> (level - kLevelBits)) & (kBins - 1))};
  }

  std::uint64_t levels_ = 0;
  std::array<std::uint32_t, 64> bits_{};
  std::array<std::array<Piece*, kBins>, 64> bins_{};
};

}  // namespace reprise
