// Placing: one Pass and the region that its allocations are served from (allocator/planned_region.hpp), and what it teaches about the next one.
//
// The places come from the simulation of the Plan; where the Pass asked for something else (a miss), from what it really asked for, logged here. A step that
// was served as a whole is logged again only after one that was not.
// One Pass at a time: two that overlap would derail each other's sequence, so where one begins while another is served, neither is; their steps are given up
// after a few such Passes. On CUDA what is asked for on the device's default stream; other streams are served by best fit. Not under REPRISE_PLACEMENT=0.
// Threads: note() by any, several at once where two backwards share a graph; the rest by the thread that chooses or finishes it.
// Failure: none; what has no place is served by best fit, and counted (Statistics::planned_misses).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "allocator/caching_allocator.hpp"
#include "policy/step_placement.hpp"

namespace reprise::engine {

struct Following;

bool placement_allowed();  // by the environment, for the budgeted device

// Of one kind of step, under one Plan.
struct Placed {
  const Following* plan = nullptr;  // the Plan it was made for; a new one asks for a new Placed
  std::shared_ptr<const PlannedStep> step;
  int tries = 0;         // places worked out from what a Pass asked for, since one was served as a whole
  bool settled = false;  // it served a whole Pass, or it never will
};

class Placing {
 public:
  Placing() = default;
  Placing(const Placing&) = delete;
  Placing& operator=(const Placing&) = delete;
  ~Placing() { leave(); }

  void begin(const Placed& placed);
  void note(const void* address, int64_t bytes) {
    if (!log_) return;  // made by begin(), before any thread notes
    const std::lock_guard<std::mutex> lock(log_mutex_);
    bytes > 0 ? log_->allocate(address, bytes) : log_->free(address, -bytes);
  }
  void leave() noexcept;       // the Pass is through, or left its Trace: the region is ordinary memory again
  void learn(Placed& placed);  // after leave(): the next Pass's places
  std::shared_ptr<const PlannedStep> served() const { return whole() ? step_ : nullptr; }  // after leave(): the places, if all of them were used

 private:
  void settle(Placed& placed) const;
  bool whole() const { return begun_ && !interrupted_ && misses_ == 0 && hits_ == step_->pieces().size(); }

  CachingAllocator* core_ = nullptr;
  std::shared_ptr<const PlannedStep> step_;
  std::optional<AllocationLog> log_;
  mutable std::mutex log_mutex_;  // a leaf
  bool begun_ = false, left_ = true;
  bool interrupted_ = false;        // the region was given up before the Pass left it
  uint64_t hits_ = 0, misses_ = 0;  // counts at the start; from leave() on, those of the Pass
};

}  // namespace reprise::engine
