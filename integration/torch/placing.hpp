// Placing: one Pass and the region that its allocations are served from (allocator/planned_region.hpp), and what it teaches about the next one.
//
// The places come from the simulation of the Plan; where the Pass asked for something else (a miss), from what it really asked for, logged here.
// Threads: note() by the thread that the Pass's allocations are told on; the rest by the thread that chooses or finishes it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "allocator/caching_allocator.hpp"
#include "policy/step_placement.hpp"

namespace reprise::engine {

struct Following;

// Of one kind of step, under one Plan.
struct Placed {
  const Following* plan = nullptr;  // the Plan it was made for; a new one asks for a new Placed
  std::shared_ptr<const PlannedStep> step;
  int tries = 0;
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
    if (log_) bytes > 0 ? log_->allocate(address, bytes) : log_->free(address, -bytes);
  }
  void leave() noexcept;       // the Pass is through, or left its Trace: the region is ordinary memory again
  void learn(Placed& placed);  // after leave(): the next Pass's places
  bool served() const { return begun_; }

 private:
  void settle(Placed& placed) const;
  CachingAllocator* core_ = nullptr;
  std::shared_ptr<const PlannedStep> step_;
  std::optional<AllocationLog> log_;
  bool begun_ = false, left_ = true;
  uint64_t hits_ = 0, misses_ = 0;  // counts at the start; from leave() on, those of the Pass
};

}  // namespace reprise::engine
