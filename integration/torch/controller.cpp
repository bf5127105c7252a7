#include "integration/torch/controller.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/communication.hpp"
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

int64_t live_bytes() { return static_cast<int64_t>(budgeted_core().statistics().live_bytes); }

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

void Controller::set_budget_bytes(int64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  config_.budget_bytes = bytes;
}

void Controller::disable() {
  std::lock_guard<std::mutex> lock(mutex_);
  enabled_ = false;
  agreement_.reset(false);
  forget();
  budgeted_core().end_planned();
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

std::shared_ptr<Pass> Controller::newest_pass() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return alive_.empty() ? nullptr : alive_.back().lock();
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
      derived.structure = here.structure;
      derived.first = here.first;
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

void Controller::choose(Pass& pass, const FirstCall& first) {
  Config config;
  Known known;
  uint64_t generation = 0;
  std::shared_ptr<const Following> lent;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    config = config_;
    generation = generation_;
    if (!pass.partial) {
      std::tie(pass.key, known) = find(first.key, pass.start_live_bytes);
      known.first = first;
      known.last_used = known_[pass.key].last_used = ++uses_;
      forget_the_longest_unused(pass.key);
      last_known_ = pass.key;
      lent = borrow(first, known, pass.start_live_bytes);
    }
  }
  PassOptions options = unplanned_options(config, pass.start_live_bytes);
  if (pass.partial) {
    options.fingerprint = budget_is_on_cpu();  // R11: these Ops were not looked at before
    pass.set_options(std::move(options));
    return;
  }
  const auto round = agreement_.next_pass();
  if (round || agreement_.ranks()) lent.reset();  // the ranks follow one Plan
  std::optional<std::pair<std::string, int64_t>> refused;
  if (round) refused = agree(*round, known, config, pass.start_live_bytes);
  else if (!agreement_.ranks() && wants_plan(known, config, pass.start_live_bytes)) make_plan(known, pass.start_live_bytes);
  known.passes++;
  if (known.following && known.placed.plan != known.following.get()) known.placed = {.plan = known.following.get(), .step = nullptr};
  if (known.learning) known.following.reset(), known.agreed.reset();
  if (lent) known.borrowed++, known.lent_all_kept = lent->plan.groups.empty(), counters.lent++;
  const bool alone = !round && agreement_.ranks() && !known.agreed && known.planned_limit != INT64_MAX;  // its Plan is nobody else's: not before the next round
  store(pass.key, known, generation);
  options.regions = known.regions;
  if (refused) raise(refused->first, refused->second);
  options.verify = config.verify;
  options.fingerprint = config.verify || (known.learning && !lent && budget_is_on_cpu());  // numpy and raw pointers of the program reach host memory only
  options.trace = known.learning && !lent;
  if (can_be_planned(known, config) && !alone) options.following = known.following;
  if (options.following && !known.settled && known.planned_limit != INT64_MAX) options.trace = true;
  options.sample = options.trace || (!agreement_.ranks() && wants_seconds(config, known));
  if (lent) options.following = std::move(lent), options.lent = true;
  // Nobody has seen this step yet, or it is to be refused as soon as ranks speak: it is measured to its end.
  const bool unseen = known.learning || known.derived || known.raise;
  if (unseen && config.budget_bytes > 0) pass.may_overflow(std::nullopt);
  else if (config.budget_bytes > 0 && budget_is_on_cpu() && config.policy == "auto") pass.may_overflow(size_t(config.budget_bytes / kGrace));
  const bool placed = options.following && known.placed.plan == options.following.get();
  pass.set_options(std::move(options));
  if (placed) pass.placing.begin(known.placed);
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

std::vector<std::string> Controller::region_names() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return regions_;
}

std::vector<std::string> Controller::region_names_if_free() const {
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  return lock.owns_lock() ? regions_ : std::vector<std::string>{};
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
    known.following = Following::of(plan, known.match, known.structure);
    found = true;
  }
  if (!found)
    throw std::invalid_argument("argument plan: it was made for another model or another step: its signature is " + std::to_string(plan.trace_signature) +
                                ", which none of the " + std::to_string(known_.size()) + " steps seen so far has");
}

void Controller::write_is_coming(const at::Tensor& tensor) {
  c10::SmallVector<std::shared_ptr<Pass>, 4> passes;
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
    if (auto p = weak.lock(); p && p->options().following && !p->finished && budget_is_on_cpu() && overflow::has_room(bytes)) return 0;
  size_t freed = 0;
  for (auto& weak : alive_) {
    if (freed >= bytes) break;
    // A Pass that went to the temporary file stays there: it will be refused or planned anew, and making its Values again and again only takes longer.
    if (auto p = weak.lock(); p && !p->only_measured()) freed += p->revoke(bytes - freed);
  }
  return freed;
}

}  // namespace reprise::engine
