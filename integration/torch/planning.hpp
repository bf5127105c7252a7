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
bool needs_new_plan(const Known& known, int64_t limit_bytes);      // hysteresis: a Plan is not changed for less than 1 % of its limit
PlanResult plan_for(const Profile& profile, const Config& config, int64_t limit_bytes);

}  // namespace reprise::engine
