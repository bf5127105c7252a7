// Where the engine meets the policy layer: a Trace and a limit in, a Plan out. Nothing of torch on the other side.
#pragma once

#include <optional>
#include <string>

#include "integration/torch/controller.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

struct PlanResult {
  std::optional<Plan> plan;
  std::string infeasible;     // why it does not fit, or ""
  int64_t smallest_limit_bytes = 0;
};

bool keeps_everything(const Config& config);                       // policy "none", or no budget with "auto"
// Hysteresis: a Plan is not changed for less than 1 % of its limit.
bool needs_new_plan(const Known& known, const Config& config, int64_t start_live_bytes);
PlanResult plan_for(const Profile& profile, const Config& config, int64_t limit_bytes);
// The smallest budget for this step and for the next, which begins with its gradients there. beside_bytes: live and rounding at the Pass's start.
int64_t smallest_budget_for(const Known& known, int64_t beside_bytes, int64_t smallest_limit_bytes);

}  // namespace reprise::engine
