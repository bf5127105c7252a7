// PlannedStep: the allocations of a step that repeats, in order, each with its place in one region. A checked, immutable value.
//
// Words. Planned piece n: the n-th allocation of the step that is not small. Time is counted in these: a piece lives from its own number up to
// `dies_before`. Always: it may be there from the start, left by the step before (a gradient that is freed in the middle of a step).
//
// R1  two pieces whose lives overlap share no byte; an always piece lives for the whole step. Checked by the constructor
//
// Failure: std::invalid_argument, naming the piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace reprise {

struct PlannedPiece {
  static constexpr std::uint32_t kOutlives = UINT32_MAX;  // the step

  std::size_t bytes = 0;  // rounded
  std::size_t offset = 0;
  std::uint32_t dies_before = kOutlives;
  bool always = false;
};

class PlannedStep {
 public:
  explicit PlannedStep(std::vector<PlannedPiece> pieces);

  const std::vector<PlannedPiece>& pieces() const { return pieces_; }
  std::size_t region_bytes() const { return region_bytes_; }
  std::size_t always_at(std::size_t offset, std::size_t bytes) const noexcept;  // the always piece that lies just there, or pieces().size()

 private:
  void check() const;

  std::vector<PlannedPiece> pieces_;
  std::size_t region_bytes_ = 0;
  std::vector<std::size_t> always_;  // by offset
};

}  // namespace reprise
