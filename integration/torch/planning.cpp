#include "integration/torch/planning.hpp"

#include <algorithm>
#include <cmath>

#include "policy/planner.hpp"
#include "policy/schemes.hpp"
#include "profiler/gradients.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

bool keeps_everything(const Config& config) { return config.policy == "none" || (config.budget_bytes <= 0 && config.policy == "auto"); }

bool needs_new_plan(const Known& known, const Config& config, int64_t start_live_bytes) {
  if (known.planned_limit == INT64_MAX) return false;   // applied by the user
  if (known.planned_limit < 0) return true;
  const int64_t limit_bytes = config.budget_bytes > 0 ? std::max<int64_t>(1, config.budget_bytes - start_live_bytes - known.unplanned_bytes) : 0;
  if (limit_bytes == known.planned_limit) return false;
  const int64_t slack = known.planned_limit / 100;
  if (known.following && limit_bytes < known.planned_limit && limit_bytes >= known.following->plan.predicted_reserved_bytes) return false;
  return std::llabs(limit_bytes - known.planned_limit) > slack;
}

PlanResult plan_for(const Profile& profile, const Config& config, int64_t limit_bytes) {
  PlanResult result;
  try {
    if (config.policy == "auto") result.plan = plan(profile, std::max<int64_t>(limit_bytes, 1));
    else result.plan = plan_scheme(profile, config.policy, limit_bytes);
  } catch (const InfeasibleLimit& e) {
    // Not the plan that was asked for, but one that needs least: the cap itself is the allocator's, and it holds.
    try {
      result.plan = plan(profile, e.smallest_limit_bytes);
    } catch (const InfeasibleLimit&) {
      result.plan = plan_scheme(profile, "full");
    }
    if (result.plan->predicted_reserved_bytes > limit_bytes) {   // the search is no proof: the smallest it found may fit after all
      result.infeasible = e.what();
      result.smallest_limit_bytes = e.smallest_limit_bytes;
    }
  }
  if (config.policy != "auto" && limit_bytes > 0 && result.plan->predicted_reserved_bytes > limit_bytes)
    result.infeasible = "scheme " + config.policy + " needs " + std::to_string(result.plan->predicted_reserved_bytes) + " bytes above the Pass's start, " +
                        std::to_string(limit_bytes) + " are left under the budget";
  return result;
}

int64_t smallest_budget_for(const Known& known, int64_t beside_bytes, int64_t smallest_limit_bytes) {
  const int64_t appearing = appearing_bytes(*known.profile);
  if (appearing == 0) return beside_bytes + smallest_limit_bytes;
  return beside_bytes + std::max(smallest_limit_bytes, appearing + smallest_limit(with_gradients_resident(*known.profile)));
}

}  // namespace reprise::engine
