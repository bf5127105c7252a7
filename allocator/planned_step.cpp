#include "allocator/planned_step.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>

namespace reprise {

PlannedStep::PlannedStep(std::vector<PlannedPiece> pieces) : pieces_(std::move(pieces)) {
  for (std::size_t n = 0; n < pieces_.size(); ++n) {
    const PlannedPiece& piece = pieces_[n];
    const bool dies_late_enough = piece.dies_before > n && (piece.dies_before <= pieces_.size() || piece.dies_before == PlannedPiece::kOutlives);
    if (piece.bytes == 0 || !dies_late_enough || piece.offset + piece.bytes < piece.bytes) {
      throw std::invalid_argument("planned piece " + std::to_string(n) + ": " + std::to_string(piece.bytes) + " bytes at " + std::to_string(piece.offset) +
                                  ", dies before piece " + std::to_string(piece.dies_before));
    }
    if (!piece.elsewhere) region_bytes_ = std::max(region_bytes_, piece.offset + piece.bytes);
  }
  check();
  std::map<std::size_t, std::size_t> counts;
  for (const PlannedPiece& piece : pieces_) {
    if (piece.elsewhere) ++counts[piece.bytes];
  }
  for (const auto& [bytes, count] : counts) elsewhere_.push_back({bytes, count});
}

// Piece by piece against a map of what is live.
void PlannedStep::check() const {
  std::map<std::size_t, std::size_t> live;  // offset -> piece
  std::vector<std::vector<std::size_t>> deaths(pieces_.size() + 1);
  const auto end = [&](std::size_t n) { return pieces_[n].offset + pieces_[n].bytes; };
  const auto add = [&](std::size_t n) {
    const auto next = live.lower_bound(pieces_[n].offset);
    const bool over_next = next != live.end() && next->first < end(n);
    const bool over_previous = next != live.begin() && end(std::prev(next)->second) > pieces_[n].offset;
    if (over_next || over_previous) {
      const std::size_t other = over_next ? next->second : std::prev(next)->second;
      throw std::invalid_argument("planned piece " + std::to_string(n) + " overlaps piece " + std::to_string(other));
    }
    live.emplace(pieces_[n].offset, n);
  };
  for (std::size_t n = 0; n < pieces_.size(); ++n) {
    for (const std::size_t dead : deaths[n]) live.erase(pieces_[dead].offset);
    if (pieces_[n].elsewhere) continue;
    add(n);
    if (pieces_[n].dies_before < pieces_.size()) deaths[pieces_[n].dies_before].push_back(n);
  }
}

}  // namespace reprise
