// From the allocations of a step to a PlannedStep: what a log of them, or the simulation of a Plan, says of their order, sizes and lives becomes a placement.
//
// Words. Log: allocations and frees in order, by address. Outside: was there before the step. Survivor: is there after it (a gradient).
//
// A survivor gets its bytes from its birth on: what the step frees before they are born may use them. Where the step also frees something of that size that is
// outside, this is taken for the one of the step before, and the survivor lies where best fit puts it: there, if it can, and not in the region.
// Cost: a few greedy passes (placement.hpp). Failure: nothing (a null step) where the step allocates no pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "allocator/planned_step.hpp"
#include "policy/plan.hpp"
#include "policy/simulate.hpp"
#include "profiler/profile.hpp"

namespace reprise {

class AllocationLog {
 public:
  explicit AllocationLog(const HeapShape& heap) : heap_(heap) {}

  void allocate(const void* address, int64_t bytes);
  void free(const void* address, int64_t bytes);
  std::shared_ptr<const PlannedStep> placed(int64_t looks) const;  // nullptr: there is nothing to place

 private:
  int64_t rounded(int64_t bytes) const;

  HeapShape heap_;
  std::vector<PlannedPiece> pieces_;                   // without offsets
  std::unordered_map<const void*, std::size_t> live_;  // address -> piece
  std::map<int64_t, int> outside_;                     // rounded bytes -> how many were freed
};

inline constexpr std::size_t kMostAgain = 20'000;

// Of the Pass that `plan` will make, as it is simulated. nullptr: it allocates no pieces, a heap of that shape places nothing, or so many Ops run again (more than kMostAgain
// and eight times the forward's) that placing all their pieces would take seconds, for a Plan that nobody trains with.
std::shared_ptr<const PlannedStep> placed_step(const Plan& plan, const Profile& profile, const HeapShape& heap = {}, int64_t looks = 2'000'000);

}  // namespace reprise
