// Planner: the cheapest Plan within a limit, and the whole Frontier. Deterministic for equal Profiles and options.
//
// Words: limit_bytes counts above the live bytes at the Pass's start. Infeasible: nothing was found within the limit; carries the smallest limit found.
// Cost: about 0.3 s a Plan. Threads: none. Failure: std::invalid_argument for a limit below 0 or a count outside [1, 1000].
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "policy/plan.hpp"
#include "policy/search.hpp"
#include "profiler/profile.hpp"

namespace reprise {

struct PlannerOptions {
  SearchOptions search;
  double overhead_seconds = 6e-6;    // of one replayed Op, beside its kernel
  bool simulate = true;              // tighten until the reserved bytes of the allocator core fit too
  int32_t simulate_attempts = 4;
};

class InfeasibleLimit : public std::runtime_error {
 public:
  InfeasibleLimit(int64_t limit_bytes, int64_t smallest_limit_bytes);
  int64_t limit_bytes, smallest_limit_bytes;
};

// limit_bytes 0: no limit (scheme "none"). Throws InfeasibleLimit.
Plan plan(const Profile& profile, int64_t limit_bytes, const PlannerOptions& options = {});

// A scheme by name ("none" … "auto"), simulated. "auto" needs limit_bytes; the others ignore it.
Plan plan_scheme(const Profile& profile, const std::string& scheme, int64_t limit_bytes = 0, const PlannerOptions& options = {});

// Plans, none dominated: bytes strictly rising, seconds strictly falling; the last keeps all.
struct Frontier {
  static constexpr int32_t kVersion = 1;
  uint64_t trace_signature = 0;
  std::vector<Plan> plans;

  const Plan* pick(int64_t limit_bytes) const;      // the fastest that fits, or nullptr
  int64_t smallest_limit_bytes() const;             // 0 when empty
  std::string to_json() const;
  static Frontier from_json(const std::string& text);
};

Frontier frontier(const Profile& profile, int32_t count = 12, const PlannerOptions& options = {});
int64_t smallest_limit(const Profile& profile, const PlannerOptions& options = {});

// P1 … P5 including P3, which needs the Profile: what a Group reads is made earlier in it, a source, or outside. Throws std::invalid_argument.
void check_plan(const Plan& plan, const Profile& profile);

}  // namespace reprise
