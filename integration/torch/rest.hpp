// Rest: where every step fits without a replay, nothing is recorded, no allocation is told and no tensor is hooked (R10), but one in a
// step whose places are known (resting_places.hpp): the step is torch's own.
// The cap wakes the engine: what the step under way lacks then goes to the temporary file, and the next steps are watched, and planned, again.
//
// Threads: every member may be called from any thread; none takes a lock that the allocator's callers may hold.
#pragma once

#include <atomic>

#include "allocator/types.hpp"
#include "integration/torch/resting_places.hpp"

namespace reprise::engine {

class Rest {
 public:
  void set_observer(AllocationObserver* observer);  // of the budgeted core, while the engine is awake; lives as long as the process
  bool resting() const { return resting_.load(std::memory_order_relaxed); }
  // After every Pass: did it, and would every kind of step seen so far, keep everything?
  // served: its places, if they held for all of it. The last such places before the rest serve the steps in it.
  void after_pass(bool all_fits, std::shared_ptr<const PlannedStep> served);
  RestingPlaces& places() { return places_; }
  bool wake();          // from the pressure callback; true: it slept
  bool woken_midway();  // true once after wake(): the Pass that begins now was not seen from its start
  void reset();

 private:
  static constexpr int kPassesBefore = 3;  // in a row that fitted
  static constexpr int kMostRests = 3;     // a program that wakes it so often is better watched
  std::atomic<AllocationObserver*> observer_{nullptr};
  std::atomic<bool> resting_{false}, woken_{false};
  std::atomic<int> fitting_{0}, rests_{0};
  RestingPlaces places_;
};

}  // namespace reprise::engine
