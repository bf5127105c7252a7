// RestingPlaces: a step whose places are known is served there while the engine rests (rest.hpp).
//
// Nobody watches the step then. The first tensor that autograd saves in it gets a hook that keeps it as it is: the step begins there, as a Pass does, and ends with the
// autograd task that asks for the tensor, or when the tensor is let go of. A step that asks for something else than usual in more than half of its places is
// served by best fit from then on.
// Threads: everything may be called from any thread; no lock is held while the core is asked. Nothing throws.
#pragma once

#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "allocator/planned_step.hpp"

namespace reprise::engine {

class RestingPlaces {
 public:
  void agree(std::shared_ptr<const PlannedStep> served, bool anew);  // of one more Pass before the rest: the last ones count
  void allow(bool on) { allowed_ = on; }
  std::shared_ptr<const PlannedStep> begin() noexcept;  // nullptr: there are none, or a step is under way
  void end(const PlannedStep& step) noexcept;

 private:
  std::atomic<bool> allowed_{false}, under_way_{false};
  std::atomic<unsigned long long> misses_{0};  // counted before the step
  std::mutex mutex_;
  std::shared_ptr<const PlannedStep> step_;
};

// For a tensor that is saved at rest; nullptr: it is not the first one of a step with places.
std::unique_ptr<torch::autograd::SavedVariableHooks> hooks_at_rest(RestingPlaces& places);

}  // namespace reprise::engine
