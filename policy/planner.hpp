// Planner: the cheapest Plan within a limit, and the whole Frontier. Deterministic for equal Profiles and options.
//
// Words: limit_bytes counts above the live bytes at the Pass's start. Infeasible: nothing was found within the limit; carries the smallest limit found,
// one for which plan() answers.
// A1  every Plan's lower_bound_seconds <= its added_seconds; no schedule within its limit adds less than the bound
// A2  a Planner never answers a limit with a slower Plan than one that it answered a smaller limit with before
// Cost (CPU, models of 70 to 440 Ops): 0.2 to 0.6 s for the first limit, 0.1 s for one between two near ones, nothing for one asked before; a Frontier of 20
// 1.4 to 2 s; an infeasible limit 0.5 s more.
// Threads: a Planner is used by one thread at a time. Failure: std::invalid_argument for a limit below 0 or a count outside [1, 1000].
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "policy/plan.hpp"
#include "policy/search.hpp"
#include "policy/simulate.hpp"
#include "profiler/profile.hpp"

namespace reprise {

struct PlannerOptions {
  SearchOptions search;
  double overhead_seconds = 6e-6;  // of one replayed Op, beside its kernel
  bool simulate = true;            // tighten until the reserved bytes of the allocator core fit too
  int32_t simulate_attempts = 4;
  HeapShape heap;  // of the simulated core
};

class InfeasibleLimit : public std::runtime_error {
 public:
  InfeasibleLimit(int64_t limit_bytes, int64_t smallest_limit_bytes);
  int64_t limit_bytes, smallest_limit_bytes;
};

// Plans, none dominated: bytes strictly rising, seconds strictly falling; the last keeps all.
struct Frontier {
  static constexpr int32_t kVersion = 2;
  uint64_t trace_signature = 0;
  std::vector<Plan> plans;
  std::vector<int64_t> asked;  // limits that were searched for: a Planner made from this answers them without

  const Plan* pick(int64_t limit_bytes) const;  // the fastest that fits, or nullptr
  int64_t smallest_limit_bytes() const;         // 0 when empty
  std::string to_json() const;
  static Frontier from_json(const std::string& text);
};

// All answers for one Profile: what was found for one limit serves the next, so keep it as long as the Profile is used.
class Planner {
 public:
  // known: Plans found for this Profile before, in another process say; each limit that one was made for is answered at once. Throws as check_plan().
  explicit Planner(Profile profile, const PlannerOptions& options = {}, const Frontier& known = {});
  ~Planner();
  Planner(Planner&&) noexcept;
  Planner& operator=(Planner&&) noexcept;

  Plan plan(int64_t limit_bytes);                                 // 0: no limit (scheme "none"). Throws InfeasibleLimit
  Plan scheme(const std::string& name, int64_t limit_bytes = 0);  // by name ("none" … "auto"), simulated; only "auto" heeds the limit
  Frontier frontier(int32_t count = 20);                          // about so many limits between the smallest and plain's bytes
  Frontier known() const;                                         // all that was found so far, and the limits that it was asked for
  int64_t smallest_limit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same for one question only.
Plan plan(const Profile& profile, int64_t limit_bytes, const PlannerOptions& options = {});
Plan plan_scheme(const Profile& profile, const std::string& scheme, int64_t limit_bytes = 0, const PlannerOptions& options = {});
Frontier frontier(const Profile& profile, int32_t count = 20, const PlannerOptions& options = {});
int64_t smallest_limit(const Profile& profile, const PlannerOptions& options = {});

// Seconds that the Plan adds by this Profile, which may be a later look at the step that it was made for.
double added_seconds(const Plan& plan, const Profile& profile, double overhead_seconds = PlannerOptions{}.overhead_seconds);

// Whether `found` adds so much less than `last` would that a change is worth it: Plans do not flap with the noise of seconds. True where `last` is no Plan for
// this Profile.
bool worth_changing(const Plan& last, const Plan& found, const Profile& profile);

// P1 … P6 including P3, which needs the Profile: what a Group reads is made earlier in it or unpacked, a source, or outside. Throws std::invalid_argument.
void check_plan(const Plan& plan, const Profile& profile);

}  // namespace reprise
