// The Controller's slow part: what a finished Pass teaches, and the Plan made of it. The registry, and who follows what, is in controller.cpp.
#include <fnmatch.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/overflow.hpp"
#include "integration/torch/planning.hpp"
#include "profiler/gradients.hpp"

namespace reprise::engine {
namespace {

// What the core holds beside live bytes, after a trim: rounding, and small pieces cached by threads. No Plan can change it. A region needs whole pages of its
// own, so what is left of pages that live pieces lie in counts as well.
int64_t unplanned_bytes() {
  const Statistics s = budgeted_core().statistics();
  const auto rounding = static_cast<int64_t>(s.allocated_bytes - s.live_bytes + s.cached_bytes);
  return heap_shape().places ? std::max(rounding, static_cast<int64_t>(s.reserved_bytes - s.live_bytes)) : rounding;
}

// exclude="head.*": what these Regions make is kept.
void exclude_regions(Trace& trace, const std::vector<std::string>& patterns) {
  for (const TraceOp& op : trace.ops)
    for (const std::string& pattern : patterns) {
      if (fnmatch(pattern.c_str(), trace.regions[size_t(op.region)].c_str(), 0) != 0) continue;
      auto keep = [&](int32_t v) {
        trace.values[size_t(v)].must_keep = true;
        trace.values[size_t(v)].reason = "excluded by name";
      };
      for (int32_t v : op.outputs) keep(v);
      for (const auto& w : op.overwrites) keep(w.second);
    }
}

}  // namespace

void Controller::finished(const std::shared_ptr<Pass>& pass) {
  if (pass->finished) return;
  pass->placing.leave();
  const bool with_backward = pass->backward_seen();
  pass->stop_recording();
  pass->read_clock();
  if (!with_backward || !watching() || pass->wants_choice() || pass->partial) return;
  uint64_t generation = 0;
  std::optional<Known> known;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    generation = generation_;
    if (auto it = known_.find(pass->key); it != known_.end()) known = it->second;
  }
  if (!known) return;
  if (pass->options().lent) {
    returned(*pass, *known);
  } else if (known->learning && pass->options().trace && !pass->options().following) {
    learn(pass, *known);
  } else if (!pass->options().following) {
    return;
  } else if (pass->plan_held()) {
    known->breaks = 0;
    known->measured_peak_bytes = pass->peak_bytes;
    known->predicted_peak_bytes = pass->options().following->plan.predicted_live_bytes;
    known->measured_seconds = now_seconds() - pass->started_seconds;
    known->measured_added_seconds = pass->added_seconds();
    if (pass->options().trace) settle(pass, *known);
    else heed_miss(*pass, *known);
    heed_refusals(*pass, *known);
    heed_seconds(*pass, *known);
    if (known->placed.plan == pass->options().following.get()) pass->placing.learn(known->placed);
  } else if (++known->breaks <= 3) {
    known->learning = true;  // the step changed: learn it anew, but not for ever
  }
  store(pass->key, *known, generation);
  // Who rests would miss the rounds; and without a temporary file nobody could be woken.
  rest_.after_pass(all_fits(*pass) && !agreement_.ranks() && budget_is_on_cpu(), pass->placing.served());
}

// This Pass repeated what was planned with nothing to replay, and so would every other kind of step seen so far.
bool Controller::all_fits(const Pass& pass) const {
  if (!pass.plan_held() || pass.options().trace || pass.overflow_bytes() > 0) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (config_.policy != "auto" || config_.budget_bytes == 0) return false;
  return std::all_of(known_.begin(), known_.end(), [](const auto& kind) {
    const Known& known = kind.second;
    if (known.passes == 0 || (!known.profile && known.lent_all_kept)) return true;
    return known.following && known.planned_limit != INT64_MAX && known.following->plan.groups.empty();
  });
}

// The heap left more holes than were simulated: the next Plan is made for so much less.
void Controller::heed_miss(const Pass& pass, Known& known) const {
  const int64_t missed = budget_is_on_cpu() ? pass.overflow_bytes() : pass.revoked_bytes();
  if (missed == 0 || known.misses++ > 3) return;
  known.missed_bytes += missed;
  known.planned_limit = -1;
  if (config().log > 0)
    std::fprintf(stderr, "reprise: %lld bytes did not fit where they were predicted to and %s; the next Plan is made for so much less\n",
                 static_cast<long long>(missed), budget_is_on_cpu() ? "went to a temporary file" : "were given up to be made again");
}

// What did not fit its packed form was kept; the next Plan does not count on it.
void Controller::heed_refusals(const Pass& pass, Known& known) {
  const std::vector<int32_t> refused = pass.refused_packings();
  if (refused.empty()) return;
  set_profile(known, without_packing(*known.profile, refused));
  if (known.planned_limit != INT64_MAX) known.planned_limit = -1;
}

// Under a Plan of our own that runs something again, until there are enough Passes in the medians.
bool Controller::wants_seconds(const Config& config, const Known& known) {
  return config.policy == "auto" && known.settled && known.following && !known.following->plan.groups.empty() && known.planned_limit != INT64_MAX &&
         known.profile->data().passes < static_cast<int32_t>(Profile::kMaxSamples);
}

// Of the last search for a step, which all its later repetitions follow: in proportion to the step, at most about four seconds.
double Controller::last_effort(double step_seconds) { return std::clamp(6 * step_seconds / 0.3, 1.0, 8.0); }

// After a few Passes, and after all of them, the medians decide once more what is cheap to make again.
void Controller::heed_seconds(const Pass& pass, Known& known) {
  constexpr int32_t kFew = 3;
  if (pass.options().trace || !pass.options().sample || known.planned_limit < 0) return;
  Profile refined = refine(*known.profile, pass.op_seconds());
  const int32_t passes = refined.data().passes;
  if (passes != kFew && passes != static_cast<int32_t>(Profile::kMaxSamples)) {
    known.profile = std::make_shared<const Profile>(std::move(refined));  // the planner keeps to the medians that its Plans were found with
    return;
  }
  Frontier found = known.planner->known();  // the same bytes, other seconds: good to fall back to, and each limit is searched anew
  found.asked.clear();
  for (Plan& plan : found.plans) plan.added_seconds = added_seconds(plan, refined), plan.lower_bound_seconds = 0;
  set_profile(known, std::move(refined), found, passes == kFew ? 1 : last_effort(known.measured_seconds));
  known.planned_limit = -1;
}

// A Profile may have found Regions between those of the parameters: they get a number of their own.
std::shared_ptr<const std::vector<int32_t>> Controller::regions_by_value(const Profile& profile) {
  std::vector<int32_t> number, out;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const std::string& name : profile.data().regions) {
      auto it = std::find(regions_.begin(), regions_.end(), name);
      if (it == regions_.end()) it = regions_.insert(it, name);
      number.push_back(static_cast<int32_t>(it - regions_.begin()));
    }
  }
  for (const ProfileValue& v : profile.values()) {
    if (v.makers.empty()) continue;
    out.resize(std::max(out.size(), size_t(v.trace_value) + 1), -1);
    out[size_t(v.trace_value)] = number[size_t(profile.ops()[size_t(v.makers.back())].region)];
  }
  return std::make_shared<const std::vector<int32_t>>(std::move(out));
}

void Controller::set_profile(Known& known, Profile profile, const Frontier& found, double effort) {
  known.regions = regions_by_value(profile);
  known.profile = std::make_shared<const Profile>(std::move(profile));
  known.planner = std::make_shared<StepPlanner>(known.profile, found, effort);
}

Trace Controller::trace_of(const Pass& pass) const {
  std::unordered_map<c10::StorageImpl*, int32_t> regions_of;
  std::vector<std::string> regions;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    regions_of = regions_of_;
    regions = regions_;
  }
  Trace trace = pass.trace(regions_of, std::move(regions));
  exclude_regions(trace, config().exclude);
  return trace;
}

void Controller::learn(const std::shared_ptr<Pass>& pass, Known& known) {
  counters.learned++;
  if (pass->caught_something()) return;  // R11: the next Pass keeps what was written unseen, and is learned instead
  try {
    set_profile(known, Profile::from_trace(trace_of(*pass)));
  } catch (const std::exception& e) {  // never the training's problem
    std::fprintf(stderr, "reprise: this step cannot be planned (%s); saved tensors are %s\n", e.what(),
                 keeps_everything(config()) ? "kept" : "dropped in groups");
    known.breaks = 4;
    known.learning = false;
    return;
  }
  known.match = std::make_shared<const std::vector<uint64_t>>(pass->matches());
  known.structure = std::make_shared<const std::vector<uint64_t>>(pass->structures());
  known.learning = false;
  known.settled = known.derived = false;
  known.learned_start_bytes = pass->start_live_bytes;
  known.appearing_bytes = reprise::appearing_bytes(*known.profile);
  known.learning_seconds = known.profile->data().pass_seconds;
  known.learning_peak_bytes = pass->peak_bytes;
  known.following.reset();
  known.planned_limit = -1;
  measured(pass, known);
}

// Raises, if no Plan fits either.
void Controller::measured(const std::shared_ptr<Pass>& pass, Known& known) const {
  known.did_not_fit = pass->only_measured();
  if (!known.did_not_fit) return;
  known.first_refused = amounts_text(overflow::first_asked_bytes());
  make_plan(known, pass->start_live_bytes);
  if (!known.raise) known.planned_limit = -1;  // made on the heap of a backward's end: once more on that of the next start
}

// The first Pass under a Plan was measured too: with warm caches, and with what the learning Pass left behind in its place.
void Controller::settle(const std::shared_ptr<Pass>& pass, Known& known) {
  known.settled = true;
  known.derived = false;
  try {
    set_profile(known, reprise::settled(*known.profile, trace_of(*pass)));
    known.learned_start_bytes = pass->start_live_bytes;
    known.appearing_bytes = reprise::appearing_bytes(*known.profile);
    known.planned_limit = -1;
    measured(pass, known);
    if (!known.did_not_fit) heed_miss(*pass, known);
  } catch (const std::exception& e) {  // the Profile there is stays good
    std::fprintf(stderr, "reprise: the second look at this step is not used (%s)\n", e.what());
  }
}

void Controller::make_plan(Known& known, int64_t start_live_bytes) const {
  const double began = now_seconds();
  Config config = this->config();
  budgeted_core().trim();  // what is free now and was not live at the start is no part of what a Plan cannot change
  known.unplanned_bytes = unplanned_bytes() + known.missed_bytes;
  const int64_t beside = start_live_bytes + known.unplanned_bytes;
  const int64_t limit_bytes = limit_for(known, config, start_live_bytes);
  const StartLayout start = start_layout();
  PlanResult result;
  known.smallest_budget_bytes = 0;
  try {
    result = known.planner->plan(config.policy, limit_bytes, start, known.following ? &known.following->plan : nullptr);
    if (result.smallest_limit_bytes > 0 && known.missed_bytes > 0) {  // nothing smaller is left: what misses goes on missing
      known.unplanned_bytes -= std::exchange(known.missed_bytes, 0);
      return make_plan(known, start_live_bytes);
    }
    if (result.smallest_limit_bytes > 0) known.smallest_budget_bytes = smallest_budget_for(known, beside, start);
  } catch (const std::exception& e) {  // never the training's problem: saved tensors are dropped in groups, the cap holds
    result.infeasible = std::string("no plan: ") + e.what();
  }
  known.plan_seconds = now_seconds() - began;
  known.planned_limit = limit_bytes;
  known.infeasible = result.infeasible;
  known.infeasible_limit_bytes = limit_bytes;
  known.smallest_limit_bytes = result.smallest_limit_bytes;
  // A learning Pass that fitted is proof that the step does, whatever the planner found: then the same way again. A scheme asked for by name is followed.
  known.raise = known.did_not_fit && known.smallest_budget_bytes > 0;
  const bool as_learned = known.smallest_budget_bytes > 0 && !known.did_not_fit && config.policy == "auto";
  if (as_learned && known.derived) known.learning = true;  // nobody has seen this step yet
  known.following = result.plan && !as_learned ? Following::of(std::move(*result.plan), known.match, known.structure) : nullptr;
  known.placed = {.plan = known.following.get(), .step = std::move(result.placed)};
  if (config.log > 0 && known.following) {
    const Plan& p = known.following->plan;
    std::fprintf(
        stderr,
        "reprise: plan %s: %zu Values kept, %zu packed, %zu Groups, predicted peak %.1f MiB of %.1f MiB above the start, %.1f ms added, planned in %.0f ms\n",
        p.scheme.c_str(), p.keep.size(), p.pack.size(), p.groups.size(), double(p.predicted_live_bytes) / 1048576, double(limit_bytes) / 1048576,
        p.added_seconds * 1e3, known.plan_seconds * 1e3);
  }
  if (config.log > 0 && !known.infeasible.empty()) std::fprintf(stderr, "reprise: %s\n", known.infeasible.c_str());
}

}  // namespace reprise::engine
