#include "integration/torch/controller.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <cstdio>
#include <tuple>
#include <utility>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/communication.hpp"
#include "integration/torch/cpu_allocator.hpp"
#include "integration/torch/engine.hpp"
#include "integration/torch/engine_internal.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/planning.hpp"
#include "policy/planner.hpp"
#include "profiler/gradients.hpp"

namespace reprise::engine {
namespace {

constexpr int kMaxVariants = 4;  // of one kind of Pass: nothing left behind, gradients, optimizer state, and one more

constexpr int64_t kGrace = 8;  // a Plan may miss its prediction by this part of the budget: into the temporary file, and the next is made for less

int64_t live_bytes() { return static_cast<int64_t>(cpu_core().statistics().live_bytes); }

// What the core holds beside live bytes: rounding, and small pieces cached by threads. No Plan can change it.
int64_t unplanned_bytes() {
  const Statistics s = cpu_core().statistics();
  return static_cast<int64_t>(s.allocated_bytes - s.live_bytes + s.cached_bytes);
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

std::string module_of(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return dot == std::string::npos ? std::string() : parameter.substr(0, dot);
}

}  // namespace

Controller& Controller::get() {
  static Controller* controller = new Controller;  // never destroyed: threads may outlive main
  return *controller;
}

void Controller::enable(Config config, const std::vector<Parameter>& parameters) {
  std::lock_guard<std::mutex> lock(mutex_);
  config_ = std::move(config);
  agreement_.reset(config_.agree);
  reset_communication_peaks();
  forget();
  regions_.assign(1, "");
  parameter_bytes_ = 0;
  std::unordered_map<std::string, int32_t> index{{"", 0}};
  for (const Parameter& p : parameters) {
    auto [it, fresh] = index.emplace(module_of(p.name), static_cast<int32_t>(regions_.size()));
    if (fresh) regions_.push_back(it->first);
    if (regions_of_.insert_or_assign(p.storage, it->second).second) parameter_bytes_ += static_cast<int64_t>(p.storage->nbytes());
    tag_storage(*p.storage, Category::kParameter, it->second);
  }
  enabled_ = true;
}

void Controller::disable() {
  std::lock_guard<std::mutex> lock(mutex_);
  enabled_ = false;
  agreement_.reset(false);
  forget();
}

void Controller::forget() {
  known_.clear();
  generation_++;
  rest_.reset();
  caught.clear();
  regions_of_.clear();
}

Config Controller::config() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return config_;
}

int64_t Controller::parameter_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return parameter_bytes_;
}

std::shared_ptr<Pass> Controller::begin_pass() {
  auto pass = std::make_shared<Pass>(PassOptions{});
  pass->start_live_bytes = live_bytes();
  counters.passes++;
  if (rest_.woken_midway()) {
    pass->partial = true;
    pass->may_overflow(std::nullopt);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(alive_, [](const auto& weak) {
    auto p = weak.lock();
    return !p || (p->finished && p->idle());
  });
  alive_.push_back(pass);
  return pass;
}

std::optional<Known> Controller::known(uint64_t first_operator) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = known_.find(first_operator);
  return it == known_.end() ? std::nullopt : std::optional<Known>(it->second);
}

void Controller::store(uint64_t first_operator, const Known& known, uint64_t generation) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (generation != generation_) return;
  auto it = known_.find(first_operator);
  if (it != known_.end()) it->second = known;
}

std::pair<uint64_t, Known> Controller::find(uint64_t key, int64_t start_live_bytes) {
  for (int variant = 0; variant < kMaxVariants; variant++) {
    const Known& here = known_[key];
    const bool left_much = here.profile && here.appearing_bytes > here.profile->saved_bytes() / 50;
    // Three quarters: some of it may have been freed meanwhile, and other things may have been made.
    if (!left_much || start_live_bytes < here.learned_start_bytes + here.appearing_bytes / 4 * 3) return {key, here};
    const uint64_t next = (key ^ 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
    if (!known_.count(next)) {
      Known& derived = known_[next];
      derived.profile = std::make_shared<const Profile>(with_gradients_resident(*here.profile));
      derived.planner = std::make_shared<StepPlanner>(derived.profile);
      derived.regions = here.regions;
      derived.match = here.match;
      derived.derived = true;
      if (here.planned_limit == INT64_MAX) derived.following = here.following, derived.planned_limit = INT64_MAX;
      derived.learned_start_bytes = start_live_bytes;
      derived.learning = false;
      derived.did_not_fit = here.did_not_fit;
      derived.first_refused = here.first_refused;
      derived.learning_seconds = here.learning_seconds;
      derived.learning_peak_bytes = here.learning_peak_bytes;
    }
    key = next;
  }
  return {key, known_[key]};
}

// Without a Plan: saved Values are dropped in Groups, unless everything is to be kept.
PassOptions Controller::unplanned_options(const Config& config, int64_t start_live_bytes) {
  PassOptions options;
  const int64_t room = config.budget_bytes > 0 ? std::max<int64_t>(0, config.budget_bytes - start_live_bytes) : int64_t{1} << 30;
  options.copy_input_bytes = std::min<int64_t>(options.copy_input_bytes, room / 32);
  if (!keeps_everything(config)) {
    options.unplanned = PassOptions::Unplanned::kGroups;
    options.group_bytes = std::max<int64_t>(int64_t{16} << 10, room / 16);
  }
  return options;
}

void Controller::choose(Pass& pass, uint64_t first_operator) {
  Config config;
  Known known;
  uint64_t generation = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    config = config_;
    generation = generation_;
    if (!pass.partial) {
      std::tie(pass.key, known) = find(first_operator, pass.start_live_bytes);
      last_known_ = pass.key;
    }
  }
  PassOptions options = unplanned_options(config, pass.start_live_bytes);
  if (pass.partial) {
    options.fingerprint = true;  // R11: these Ops were not looked at before
    pass.set_options(std::move(options));
    return;
  }
  const auto round = agreement_.next_pass();
  std::optional<std::pair<std::string, int64_t>> refused;
  if (round) refused = agree(*round, known, config, pass.start_live_bytes);
  else if (!agreement_.ranks() && wants_plan(known, config, pass.start_live_bytes)) make_plan(known, pass.start_live_bytes);
  known.passes++;
  if (known.learning) known.following.reset(), known.agreed.reset();
  const bool alone = !round && agreement_.ranks() && !known.agreed && known.planned_limit != INT64_MAX;  // its Plan is nobody else's: not before the next round
  store(pass.key, known, generation);
  options.regions = known.regions;
  if (refused) raise(refused->first, refused->second);
  options.verify = config.verify;
  options.fingerprint = config.verify || known.learning;
  options.trace = known.learning;
  if (can_be_planned(known, config) && !alone) options.following = known.following;
  if (options.following && !known.settled && known.planned_limit != INT64_MAX) options.trace = true;
  // Nobody has seen this step yet, or it is to be refused as soon as ranks speak: it is measured to its end.
  const bool unseen = known.learning || known.derived || known.raise;
  if (unseen && config.budget_bytes > 0) pass.may_overflow(std::nullopt);
  else if (config.budget_bytes > 0 && config.policy == "auto") pass.may_overflow(size_t(config.budget_bytes / kGrace));
  pass.set_options(std::move(options));
}

void Controller::raise_if_infeasible(uint64_t first_operator) {
  if (agreement_.ranks()) return;  // all of them raise it at the next round
  Known known;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = known_.find(first_operator);
    if (it == known_.end() || !it->second.raise) return;
    it->second.raise = false;
    known = it->second;
  }
  throw_infeasible(known.first_refused + "; " + known.infeasible, known);
}

void Controller::finished(const std::shared_ptr<Pass>& pass) {
  if (pass->finished) return;
  const bool with_backward = pass->backward_seen();
  pass->stop_recording();
  if (!with_backward || !watching() || pass->wants_choice() || pass->partial) return;
  uint64_t generation = 0;
  std::optional<Known> known;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    generation = generation_;
    if (auto it = known_.find(pass->key); it != known_.end()) known = it->second;
  }
  if (!known) return;
  if (known->learning && pass->options().trace && !pass->options().following) {
    learn(pass, *known);
  } else if (!pass->options().following) {
    return;
  } else if (pass->plan_held()) {
    known->breaks = 0;
    known->measured_peak_bytes = pass->peak_bytes;
    known->predicted_peak_bytes = pass->options().following->plan.predicted_live_bytes;
    known->measured_seconds = now_seconds() - pass->started_seconds;
    if (pass->options().trace) settle(pass, *known);
    else heed_miss(*pass, *known);
  } else if (++known->breaks <= 3) {
    known->learning = true;  // the step changed: learn it anew, but not for ever
  }
  store(pass->key, *known, generation);
  rest_.after_pass(all_fits(*pass) && !agreement_.ranks());  // who rests would miss the rounds
}

// This Pass repeated what was planned with nothing to replay, and so would every other kind of step seen so far.
bool Controller::all_fits(const Pass& pass) const {
  if (!pass.plan_held() || pass.options().trace || pass.overflow_bytes() > 0) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (config_.policy != "auto" || config_.budget_bytes == 0) return false;
  return std::all_of(known_.begin(), known_.end(), [](const auto& kind) {
    const Known& known = kind.second;
    return known.passes == 0 || (known.following && known.planned_limit != INT64_MAX && known.following->plan.groups.empty());
  });
}

// The heap left more holes than were simulated: the next Plan is made for so much less.
void Controller::heed_miss(const Pass& pass, Known& known) const {
  if (pass.overflow_bytes() == 0 || known.misses++ > 3) return;
  known.missed_bytes += pass.overflow_bytes();
  known.planned_limit = -1;
  if (config().log > 0)
    std::fprintf(stderr, "reprise: %lld bytes did not fit where they were predicted to and went to a temporary file; the next Plan is made for so much less\n",
                 static_cast<long long>(pass.overflow_bytes()));
}

std::vector<std::string> Controller::region_names() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return regions_;
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

void Controller::set_profile(Known& known, Profile profile) {
  known.regions = regions_by_value(profile);
  known.profile = std::make_shared<const Profile>(std::move(profile));
  known.planner = std::make_shared<StepPlanner>(known.profile);
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
  known.match = pass->matches();
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
  known.first_refused = out_of_memory_text(overflow::first_asked_bytes());
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
  cpu_core().trim();  // what is free now and was not live at the start is no part of what a Plan cannot change
  known.unplanned_bytes = unplanned_bytes() + known.missed_bytes;
  const int64_t beside = start_live_bytes + known.unplanned_bytes;
  const int64_t limit_bytes = limit_for(known, config, start_live_bytes);
  const StartLayout start = start_layout();
  PlanResult result;
  known.smallest_budget_bytes = 0;
  try {
    result = known.planner->plan(config.policy, limit_bytes, start);
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
  known.smallest_limit_bytes = result.smallest_limit_bytes;
  // A learning Pass that fitted is proof that the step does, whatever the planner found: then the same way again. A scheme asked for by name is followed.
  known.raise = known.did_not_fit && known.smallest_budget_bytes > 0;
  const bool as_learned = known.smallest_budget_bytes > 0 && !known.did_not_fit && config.policy == "auto";
  if (as_learned && known.derived) known.learning = true;  // nobody has seen this step yet
  known.following = result.plan && !as_learned ? Following::of(std::move(*result.plan), known.match) : nullptr;
  if (config.log > 0 && known.following) {
    const Plan& p = known.following->plan;
    std::fprintf(stderr,
                 "reprise: plan %s: %zu Values kept, %zu Groups, predicted peak %.1f MiB of %.1f MiB above the start, %.1f ms added, planned in %.0f ms\n",
                 p.scheme.c_str(), p.keep.size(), p.groups.size(), double(p.predicted_live_bytes) / 1048576, double(limit_bytes) / 1048576,
                 p.added_seconds * 1e3, known.plan_seconds * 1e3);
  }
  if (config.log > 0 && !known.infeasible.empty()) std::fprintf(stderr, "reprise: %s\n", known.infeasible.c_str());
}

std::optional<Known> Controller::last_known() const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = known_.find(last_known_);
  return it == known_.end() ? std::nullopt : std::optional<Known>(it->second);
}

void Controller::replace_plan(const Plan& plan) {
  plan.validate();
  std::lock_guard<std::mutex> lock(mutex_);
  bool found = false;
  for (auto& [key, known] : known_) {
    if (!known.profile || known.profile->data().trace_signature != plan.trace_signature) continue;
    check_plan(plan, *known.profile);
    known.planned_limit = INT64_MAX;  // the user's choice stays until auto_checkpoint is called again
    known.following = Following::of(plan, known.match);
    found = true;
  }
  if (!found)
    throw std::invalid_argument("argument plan: it was made for another model or another step: its signature is " + std::to_string(plan.trace_signature) +
                                ", which none of the " + std::to_string(known_.size()) + " steps seen so far has");
}

void Controller::write_is_coming(const at::Tensor& tensor) {
  std::vector<std::shared_ptr<Pass>> passes;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& weak : alive_)
      if (auto p = weak.lock(); p && !p->finished) passes.push_back(std::move(p));
  }
  for (auto& p : passes) p->prepare_unrecorded_write(tensor);
}

std::string Controller::check_invariants() const {
  std::vector<std::shared_ptr<Pass>> passes;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& weak : alive_)
      if (auto p = weak.lock()) passes.push_back(std::move(p));
  }
  for (const auto& p : passes)
    if (std::string broken = p->check_invariants(); !broken.empty()) return broken;
  return "";
}

size_t Controller::revoke(size_t bytes) {
  if (rest_.wake()) return 0;  // nothing is held: the temporary file serves this one
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock) return 0;
  // What a Plan keeps is what its Groups read: taking it makes them run whole closures, which need more memory, not less. The temporary file comes first.
  for (const auto& weak : alive_)
    if (auto p = weak.lock(); p && p->options().following && !p->finished && overflow::has_room(bytes)) return 0;
  size_t freed = 0;
  for (auto& weak : alive_) {
    if (freed >= bytes) break;
    // A Pass that went to the temporary file stays there: it will be refused or planned anew, and making its Values again and again only takes longer.
    if (auto p = weak.lock(); p && !p->only_measured()) freed += p->revoke(bytes - freed);
  }
  return freed;
}

}  // namespace reprise::engine
