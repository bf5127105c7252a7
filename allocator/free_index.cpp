#include "allocator/free_index.hpp"

namespace reprise {

void FreeIndex::insert(Piece* piece) noexcept {
  const Bin bin = bin_of(piece->bytes);
  Piece*& head = bins_[bin.level][bin.index];
  piece->bin_previous = nullptr;
  piece->bin_next = head;
  if (head != nullptr) head->bin_previous = piece;
  head = piece;
  bits_[bin.level] |= std::uint32_t{1} << bin.index;
  levels_ |= std::uint64_t{1} << bin.level;
}

void FreeIndex::erase(Piece* piece) noexcept {
  if (piece->bin_next != nullptr) piece->bin_next->bin_previous = piece->bin_previous;
  if (piece->bin_previous != nullptr) {
    piece->bin_previous->bin_next = piece->bin_next;
    return;
  }
  const Bin bin = bin_of(piece->bytes);
  bins_[bin.level][bin.index] = piece->bin_next;
  if (piece->bin_next != nullptr) return;
  bits_[bin.level] &= ~(std::uint32_t{1} << bin.index);
  if (bits_[bin.level] == 0) levels_ &= ~(std::uint64_t{1} << bin.level);
}

namespace {

Piece* smallest_that_fits(Piece* piece, std::size_t bytes, int scan) noexcept {
  Piece* best = nullptr;
  for (; piece != nullptr && scan > 0; piece = piece->bin_next, --scan) {
    if (piece->bytes < bytes || (best != nullptr && piece->bytes >= best->bytes)) continue;
    best = piece;
    if (piece->bytes == bytes) break;
  }
  return best;
}

}  // namespace

Piece* FreeIndex::best_fit(std::size_t bytes) const noexcept {
  const Bin bin = bin_of(bytes);
  if (Piece* piece = smallest_that_fits(bins_[bin.level][bin.index], bytes, kScan)) return piece;
  // every piece of a higher bin fits
  const std::uint32_t same_level = bin.index == kBins - 1 ? 0 : bits_[bin.level] & (~std::uint32_t{0} << (bin.index + 1));
  if (same_level != 0) return smallest_that_fits(bins_[bin.level][static_cast<unsigned>(std::countr_zero(same_level))], bytes, kScan);
  const std::uint64_t higher = bin.level == 63 ? 0 : levels_ & (~std::uint64_t{0} << (bin.level + 1));
  if (higher == 0) return nullptr;
  const unsigned level = static_cast<unsigned>(std::countr_zero(higher));
  return smallest_that_fits(bins_[level][static_cast<unsigned>(std::countr_zero(bits_[level]))], bytes, kScan);
}

Piece* FreeIndex::largest_bin() const noexcept {
  if (levels_ == 0) return nullptr;
  const unsigned level = static_cast<unsigned>(std::bit_width(levels_) - 1);
  return bins_[level][static_cast<unsigned>(std::bit_width(bits_[level]) - 1)];
}

std::string FreeIndex::check() const {
  for (unsigned level = 0; level < 64; ++level) {
    if (((levels_ >> level) & 1) != (bits_[level] != 0)) return "F1: level bit differs from its bins";
    for (unsigned index = 0; index < kBins; ++index) {
      Piece* const head = bins_[level][index];
      if (((bits_[level] >> index) & 1) != (head != nullptr)) return "F1: bin bit differs from its list";
      for (Piece* piece = head; piece != nullptr; piece = piece->bin_next) {
        const Bin bin = bin_of(piece->bytes);
        if (bin.level != level || bin.index != index) return "F2: piece of " + std::to_string(piece->bytes) + " bytes in the wrong bin";
      }
    }
  }
  return {};
}

}  // namespace reprise
