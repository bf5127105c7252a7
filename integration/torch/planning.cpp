#include "integration/torch/planning.hpp"

#include <algorithm>
#include <cmath>

#include "policy/schemes.hpp"
#include "policy/step_placement.hpp"
#include "profiler/gradients.hpp"

namespace reprise::engine {
namespace {

constexpr int kAttempts = 3;
constexpr int64_t kLooks = 40'000'000;  // of a placement that training may follow: tenths of a second at most
constexpr int64_t kLargeLimit = int64_t{16} << 20, kRoom = int64_t{128} << 10;

// A real core begins a Pass with slabs and pages in use that the simulated one does not have: what a Plan is made for.
int64_t without_room(int64_t limit_bytes) { return limit_bytes >= kLargeLimit ? limit_bytes - kRoom : limit_bytes; }
int64_t with_room(int64_t bytes) { return bytes + kRoom >= kLargeLimit ? bytes + kRoom : bytes; }

}  // namespace

bool keeps_everything(const Config& config) { return config.policy == "none" || (config.budget_bytes <= 0 && config.policy == "auto"); }

int64_t limit_for(const Known& known, const Config& config, int64_t start_live_bytes) {
  return config.budget_bytes > 0 ? std::max<int64_t>(1, config.budget_bytes - start_live_bytes - known.unplanned_bytes) : 0;
}

bool can_be_planned(const Known& known, const Config& config) { return known.profile && !known.learning && !config.verify; }

bool needs_new_plan(const Known& known, const Config& config, int64_t start_live_bytes) {
  if (known.planned_limit == INT64_MAX) return false;  // applied by the user
  if (known.planned_limit < 0) return true;
  const int64_t limit_bytes = limit_for(known, config, start_live_bytes);
  if (limit_bytes == known.planned_limit) return false;
  const int64_t slack = known.planned_limit / 100;
  if (known.following && limit_bytes < known.planned_limit && limit_bytes >= known.following->plan.predicted_reserved_bytes) return false;
  return std::llabs(limit_bytes - known.planned_limit) > slack;
}

StartLayout start_layout() {
  const HeapShape heap = heap_shape();  // small ones are served from slabs, which count as they are
  const auto small = static_cast<int64_t>(heap.small_limit_bytes), rounding = static_cast<int64_t>(heap.rounding_bytes);
  StartLayout layout;
  budgeted_core().visit_live([&](void* pointer, std::size_t bytes, Tag) {
    const auto rounded = (static_cast<int64_t>(bytes) + rounding - 1) / rounding * rounding;
    if (rounded > small) layout.emplace_back(reinterpret_cast<int64_t>(pointer), rounded);
  });
  std::sort(layout.begin(), layout.end());
  if (layout.empty()) return layout;
  const auto page = static_cast<int64_t>(heap.page_bytes), first_page = layout.front().first / page * page;
  for (auto& [offset, bytes] : layout) offset -= first_page;  // where in its page the first one lies stays true
  return layout;
}

// The Plan with the reserved bytes it needs on this heap.
Plan StepPlanner::tried(Plan plan, int64_t limit_bytes, const StartLayout& start, std::shared_ptr<const PlannedStep>* placed) const {
  plan.limit_bytes = limit_bytes;
  auto step = placed_step(plan, *profile_, heap_, kLooks);
  Simulated simulated = simulate(plan, *profile_, start, heap_, step);
  if (step && simulated.peak_reserved_bytes > limit_bytes) {  // best fit may do with less where holes are what is left
    const Simulated unplaced = simulate(plan, *profile_, start, heap_);
    if (unplaced.peak_reserved_bytes < simulated.peak_reserved_bytes) simulated = unplaced, step = nullptr;
  }
  if (placed) *placed = std::move(step);
  plan.predicted_live_bytes = simulated.peak_live_bytes;
  plan.predicted_reserved_bytes = simulated.peak_reserved_bytes;
  return plan;
}

PlanResult StepPlanner::automatic(int64_t limit_bytes, const StartLayout& start) {
  PlanResult result;
  int64_t target = without_room(limit_bytes), least = INT64_MAX;
  std::string why;
  for (int attempt = 0; attempt < kAttempts && target > 0; attempt++) {
    std::optional<Plan> found;
    bool smallest = false;
    try {
      found = planner_.plan(target);
    } catch (const InfeasibleLimit& e) {
      if (why.empty()) why = InfeasibleLimit(limit_bytes, with_room(e.smallest_limit_bytes)).what();
      found = planner_.plan(e.smallest_limit_bytes);
      smallest = true;
    }
    const int64_t empty_heap_bytes = found->predicted_reserved_bytes;
    std::shared_ptr<const PlannedStep> placed;
    Plan plan = tried(std::move(*found), limit_bytes, start, &placed);
    const int64_t excess = plan.predicted_reserved_bytes - limit_bytes;
    if (plan.predicted_reserved_bytes < least) {
      least = plan.predicted_reserved_bytes;
      result.plan = std::move(plan);
      result.placed = std::move(placed);
    }
    if (excess <= 0 || smallest) break;
    target = std::min(target, empty_heap_bytes) - excess;
  }
  if (least <= limit_bytes) return result;
  result.smallest_limit_bytes = least;
  result.infeasible =
      why.empty() ? "plan: what is live leaves holes; the best Plan for " + std::to_string(limit_bytes) + " bytes needs " + std::to_string(least) : why;
  return result;
}

PlanResult StepPlanner::plan(const std::string& policy, int64_t limit_bytes, const StartLayout& start, const Plan* last) {
  std::lock_guard<std::mutex> lock(mutex_);
  PlanResult result;
  if (policy == "auto" && limit_bytes > 0) {
    result = automatic(limit_bytes, start);
    std::shared_ptr<const PlannedStep> placed;
    if (last && result.infeasible.empty() && !worth_changing(*last, *result.plan, *profile_))
      if (Plan again = tried(*last, limit_bytes, start, &placed); again.predicted_reserved_bytes <= limit_bytes) {
        again.added_seconds = added_seconds(*last, *profile_);
        again.lower_bound_seconds = result.plan->lower_bound_seconds;
        result.plan = std::move(again);
        result.placed = std::move(placed);
      }
    return result;
  }
  result.plan = policy == "auto" ? planner_.plan(0) : planner_.scheme(policy, limit_bytes);
  result.placed = placed_step(*result.plan, *profile_, heap_, kLooks);
  if (limit_bytes > 0 && result.plan->predicted_reserved_bytes > limit_bytes)
    result.infeasible = "scheme " + policy + " needs " + std::to_string(result.plan->predicted_reserved_bytes) + " bytes above the Pass's start, " +
                        std::to_string(limit_bytes) + " are left under the budget";
  return result;
}

Plan StepPlanner::adopted(Plan plan, int64_t limit_bytes, const StartLayout& start) const {
  plan.trace_signature = profile_->data().trace_signature;
  check_plan(plan, *profile_);
  return tried(std::move(plan), limit_bytes, start);
}

Frontier StepPlanner::known() {
  std::lock_guard<std::mutex> lock(mutex_);
  return planner_.known();
}

int64_t StepPlanner::smallest_limit(const StartLayout& start) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t limit = planner_.smallest_limit();
  return std::max(with_room(limit), tried(planner_.plan(limit), limit, start).predicted_reserved_bytes);
}

int64_t smallest_budget_for(const Known& known, int64_t beside_bytes, const StartLayout& start) {
  const int64_t now = known.planner->smallest_limit(start), appearing = appearing_bytes(*known.profile);
  if (appearing == 0) return beside_bytes + now;
  return beside_bytes + std::max(now, appearing + StepPlanner(std::make_shared<const Profile>(with_gradients_resident(*known.profile))).smallest_limit(start));
}

}  // namespace reprise::engine
