#include "policy/planner.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "policy/bound.hpp"
#include "policy/schemes.hpp"
#include "policy/simulate.hpp"
#include "policy/step_placement.hpp"

namespace reprise {
namespace {

void check_limit(int64_t limit) {
  if (limit < 0 || limit >= kNoLimit)
    throw std::invalid_argument("plan: limit_bytes is " + std::to_string(limit) + ", must be in [0, " + std::to_string(kNoLimit) + ")");
}

}  // namespace

struct Planner::State {
  State(Profile p, const PlannerOptions& o)
      : profile(std::move(p)), options(o), instance(profile, o.overhead_seconds), blocks(find_blocks(profile)), pricer(instance), bound(instance) {}

  struct Found {
    std::optional<Choice> choice;  // none: found by another Planner
    Plan plan;
    int64_t needs;  // bytes
  };

  int64_t needs(const Plan& p) const { return options.simulate ? std::max(p.predicted_live_bytes, p.predicted_reserved_bytes) : p.predicted_live_bytes; }

  Plan priced(const Choice& choice, const std::string& scheme, int64_t limit) {
    Plan p = pricer.plan(choice, scheme, limit);
    if (p.limit_bytes > 0) p.limit_bytes = std::max(p.limit_bytes, p.predicted_live_bytes);  // the simulated core's cap: as tight as it can be held
    if (options.simulate) p.predicted_reserved_bytes = reserved_bytes(p);
    return p;
  }

  // As best fit or a planned region will serve it: the region where best fit leaves holes that matter.
  int64_t reserved_bytes(const Plan& p) const {
    const Simulated best_fit = simulate(p, profile, {}, options.heap);
    if (best_fit.peak_reserved_bytes <= best_fit.peak_live_bytes + best_fit.peak_live_bytes / 200) return best_fit.peak_reserved_bytes;
    const auto placed = placed_step(p, profile, options.heap, 0);
    return placed ? std::min(best_fit.peak_reserved_bytes, simulate(p, profile, {}, options.heap, placed).peak_reserved_bytes) : best_fit.peak_reserved_bytes;
  }

  Search& search() {
    if (!lazy_search) lazy_search.emplace(instance, blocks, options.search);
    return *lazy_search;
  }

  // Kept in order of bytes, seconds falling: what another needs no more bytes and no more seconds than is forgotten.
  void remember(std::optional<Choice> choice, const Plan& p) {
    const Found f{std::move(choice), p, needs(p)};
    for (const Found& k : found)
      if (k.needs <= f.needs && k.plan.added_seconds <= f.plan.added_seconds) return;
    std::erase_if(found, [&](const Found& k) { return k.needs >= f.needs && k.plan.added_seconds >= f.plan.added_seconds; });
    found.insert(std::upper_bound(found.begin(), found.end(), f.needs, [](int64_t n, const Found& k) { return n < k.needs; }), f);
  }

  // The fastest that fits, or nullptr.
  const Found* fitting(int64_t limit) const {
    const Found* best = nullptr;
    for (const Found& f : found)
      if (f.needs <= limit) best = &f;
    return best;
  }

  bool is_near_the_bound(int64_t limit) {
    const Found* f = fitting(limit);
    return f && f->plan.added_seconds <= 1.05 * bound.run(limit, f->plan.added_seconds).seconds;
  }

  // Neighbours in bytes: where a search for `limit` may begin. close: so near, in seconds too, that little work is left.
  std::vector<Choice> neighbours(int64_t limit, bool& close) const {
    std::vector<Choice> out;
    const auto above = std::find_if(found.begin(), found.end(), [&](const Found& f) { return f.needs > limit; });
    const auto near = [&](const Found& f) { return std::abs(static_cast<double>(f.needs - limit)) < 0.08 * static_cast<double>(limit); };
    const auto offer = [&](const Found& f) {
      if (f.choice) out.push_back(*f.choice);
    };
    if (above != found.begin()) offer(*std::prev(above));
    close = above != found.begin() && near(*std::prev(above)) && above != found.end() && near(*above) &&
            std::prev(above)->plan.added_seconds < 1.2 * above->plan.added_seconds;
    if (above != found.end()) offer(*above);
    return out;
  }

  // Those, and the bound's cuts.
  std::vector<Choice> starts(int64_t limit, bool& close) {
    std::vector<Choice> out = neighbours(limit, close);
    for (Choice& c : bound.run(limit, 0).choices) out.push_back(std::move(c));
    return out;
  }

  // Searches until the reserved bytes of the simulated core fit too; all that was looked at is remembered.
  void look(int64_t limit, std::vector<Choice> starts, double share) {
    int64_t target = limit;
    for (int32_t attempt = 0; attempt < std::max(1, options.simulate_attempts) && target > 0; attempt++) {
      const reprise::Found f = search().run(target, starts, attempt == 0 ? share : share / 4);
      const Plan p = priced(f.choice, "auto", limit);
      remember(f.choice, p);
      if (!f.fits || needs(p) <= limit) return;
      starts.push_back(f.choice);  // the next attempt begins where this one ended
      target = std::min(target, p.predicted_live_bytes) - (p.predicted_reserved_bytes - limit);
    }
  }

  Profile profile;
  PlannerOptions options;
  Instance instance;
  std::vector<Block> blocks;
  Pricer pricer;
  std::optional<Search> lazy_search;  // named schemes need none
  Bound bound;
  std::vector<Found> found;
  std::vector<int64_t> asked;  // limits searched for
  bool least_known = false;
};

Planner::Planner(Profile profile, const PlannerOptions& options, const Frontier& known) : state_(std::make_unique<State>(std::move(profile), options)) {
  for (const Plan& p : known.plans) {
    check_plan(p, state_->profile);
    state_->remember(std::nullopt, p);
  }
  state_->asked = known.asked;
}
Planner::~Planner() = default;
Planner::Planner(Planner&&) noexcept = default;
Planner& Planner::operator=(Planner&&) noexcept = default;

InfeasibleLimit::InfeasibleLimit(int64_t limit, int64_t smallest)
    : std::runtime_error("plan: nothing found within " + std::to_string(limit) + " bytes; the smallest limit found is " + std::to_string(smallest) + " bytes"),
      limit_bytes(limit),
      smallest_limit_bytes(smallest) {}

Plan Planner::plan(int64_t limit) {
  check_limit(limit);
  State& s = *state_;
  if (limit == 0) return scheme("none");
  if (std::find(s.asked.begin(), s.asked.end(), limit) == s.asked.end()) {
    if (s.options.search.effort > 1.5)  // time enough to come from where more fits
      for (double more : {1.3, 1.15, 1.05}) {
        const auto wider = static_cast<int64_t>(more * static_cast<double>(limit));
        bool close = false;
        s.look(wider, s.starts(wider, close), 0.2);
      }
    bool close = false;
    std::vector<Choice> starts = s.starts(limit, close);
    if (close) s.look(limit, starts, 0.4);
    if (!close || !s.is_near_the_bound(limit)) s.look(limit, std::move(starts), close ? 0.8 : 1.0);
    s.asked.push_back(limit);
  }
  if (!s.fitting(limit)) smallest_limit();  // what needs least may fit
  const State::Found* f = s.fitting(limit);
  if (!f) throw InfeasibleLimit(limit, smallest_limit());
  Plan p = f->plan;
  p.limit_bytes = limit;
  p.lower_bound_seconds = s.bound.run(limit, p.added_seconds).seconds;
  return p;
}

Plan Planner::scheme(const std::string& name, int64_t limit) {
  const Scheme wanted = Scheme::parse(name);
  if (wanted.kind == Scheme::Kind::kAuto) return plan(limit);
  return state_->priced(choose(wanted, state_->instance, state_->blocks), wanted.name(), kNoLimit);
}

int64_t Planner::smallest_limit() {
  State& s = *state_;
  if (!s.least_known) {
    for (const Choice& c : s.search().lowest(8)) s.remember(c, s.priced(c, "auto", 1));  // few live bytes may still be badly placed
    s.look(1, {}, 1.0);
    s.least_known = true;
  }
  return s.found.front().needs;
}

// Down from plain, then up from the least: each limit begins where its neighbours ended.
Frontier Planner::frontier(int32_t count) {
  if (count < 1 || count > 1000) throw std::invalid_argument("frontier: count is " + std::to_string(count) + ", must be in [1, 1000]");
  State& s = *state_;
  Plan none = scheme("none");
  const int64_t low = smallest_limit(), high = s.needs(none);
  std::vector<int64_t> limits;
  for (int32_t k = count - 2; k >= 0; k--)
    limits.push_back(low + static_cast<int64_t>(static_cast<double>(high - low) * std::pow(static_cast<double>(k) / count, 1.5)));
  bool close = false;
  for (int64_t l : limits) {
    std::vector<Choice> starts = s.neighbours(l, close);
    for (Choice& c : s.bound.run_next(l, 0).choices) starts.push_back(std::move(c));
    s.look(l, std::move(starts), 0.12);
  }
  for (size_t k = limits.size(); k-- > 0;) s.look(limits[k], s.neighbours(limits[k], close), 0.06);
  Frontier out;
  out.trace_signature = s.profile.data().trace_signature;
  out.asked = s.asked;  // not the sweep's own: it looked at each with a tenth of what a limit gets that somebody asks for
  for (const State::Found& f : s.found) {
    if (f.plan.added_seconds <= 0) continue;
    out.plans.push_back(f.plan);
    out.plans.back().limit_bytes = f.needs;
    out.plans.back().lower_bound_seconds = s.bound.at_least(f.needs);
  }
  out.plans.push_back(std::move(none));
  return out;
}

Frontier Planner::known() const {
  Frontier out;
  out.trace_signature = state_->profile.data().trace_signature;
  for (const State::Found& f : state_->found) out.plans.push_back(f.plan);
  out.asked = state_->asked;
  return out;
}

Plan plan(const Profile& profile, int64_t limit_bytes, const PlannerOptions& options) {
  check_limit(limit_bytes);
  return Planner(profile, options).plan(limit_bytes);
}

Plan plan_scheme(const Profile& profile, const std::string& name, int64_t limit_bytes, const PlannerOptions& options) {
  Scheme::parse(name);
  return Planner(profile, options).scheme(name, limit_bytes);
}

Frontier frontier(const Profile& profile, int32_t count, const PlannerOptions& options) { return Planner(profile, options).frontier(count); }

int64_t smallest_limit(const Profile& profile, const PlannerOptions& options) { return Planner(profile, options).smallest_limit(); }

}  // namespace reprise
