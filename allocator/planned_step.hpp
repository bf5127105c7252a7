// PlannedStep: the allocations of a step that repeats, in order, each with its place in one region. A checked, immutable value.
//
// Words. Planned piece n: the n-th allocation of the step that is not small. Time is counted in these: a piece lives from its own number up to
// `dies_before`. Elsewhere: one that is asked for in its turn and has no place in the region, because what it replaces lies outside (a gradient, a loss, the one
// of the step before being freed in the middle of this one): it gets the bytes that were freed there, or, where they are freed later, what best fit finds.
//
// R1  two pieces whose lives overlap share no byte, but for those that lie elsewhere. Checked by the constructor
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
  bool elsewhere = false;  // then there is no offset
};

class PlannedStep {
 public:
  explicit PlannedStep(std::vector<PlannedPiece> pieces);

  const std::vector<PlannedPiece>& pieces() const { return pieces_; }
  std::size_t region_bytes() const { return region_bytes_; }
  struct Size {
    std::size_t bytes, count;
  };
  const std::vector<Size>& elsewhere() const { return elsewhere_; }  // how many of each size lie elsewhere, by size

 private:
  void check() const;

  std::vector<PlannedPiece> pieces_;
  std::size_t region_bytes_ = 0;
  std::vector<Size> elsewhere_;
};

}  // namespace reprise
