// Where the engine meets the policy layer: a Profile and a limit in, a Plan out. Nothing of torch on the other side.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/controller.hpp"
#include "policy/planner.hpp"
#include "policy/simulate.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

struct PlanResult {
  std::optional<Plan> plan;
  std::shared_ptr<const PlannedStep> placed;  // where its allocations lie; nullptr: wherever best fit puts them
  std::string infeasible;                     // why it does not fit, or ""
  int64_t smallest_limit_bytes = 0;           // set with infeasible
};

// All Plans for one Profile, each tried on the heap as it is: what is live at the Pass's start lies somewhere, and holes between may be too small.
// Threads: one mutex; any thread may ask.
class StepPlanner {
 public:
  // effort: how many times 0.3 s a search may take.
  explicit StepPlanner(std::shared_ptr<const Profile> profile, const Frontier& known = {}, double effort = 1)
      : profile_(std::move(profile)), heap_(heap_shape()), planner_(*profile_, {.search = {.effort = effort}, .heap = heap_}, known) {}

  // last: the Plan followed so far, if any. It stays where it fits and a new one is hardly better: Plans do not flap with the noise of seconds.
  PlanResult plan(const std::string& policy, int64_t limit_bytes, const StartLayout& start, const Plan* last = nullptr);
  int64_t smallest_limit(const StartLayout& start);
  // Another rank's Plan for a step of the same structure, with the bytes that it needs here. Throws std::invalid_argument where it is none for this step.
  Plan adopted(Plan plan, int64_t limit_bytes, const StartLayout& start) const;
  Frontier known();  // all Plans found so far

 private:
  Plan tried(Plan plan, int64_t limit_bytes, const StartLayout& start, std::shared_ptr<const PlannedStep>* placed = nullptr) const;
  PlanResult automatic(int64_t limit_bytes, const StartLayout& start);

  std::mutex mutex_;
  std::shared_ptr<const Profile> profile_;
  HeapShape heap_;
  Planner planner_;
};

bool keeps_everything(const Config& config);                                            // policy "none", or no budget with "auto"
int64_t limit_for(const Known& known, const Config& config, int64_t start_live_bytes);  // above the Pass's start; 0: no budget
// Hysteresis: a Plan is not changed for less than 1 % of its limit.
bool needs_new_plan(const Known& known, const Config& config, int64_t start_live_bytes);
bool can_be_planned(const Known& known, const Config& config);
inline bool wants_plan(const Known& known, const Config& config, int64_t start_live_bytes) {
  return can_be_planned(known, config) && needs_new_plan(known, config, start_live_bytes);
}
// The smallest budget for this step and for the next, which begins with its gradients there. beside_bytes: live and rounding at the Pass's start.
int64_t smallest_budget_for(const Known& known, int64_t beside_bytes, const StartLayout& start);
StartLayout start_layout();  // of the budgeted core, now

}  // namespace reprise::engine
