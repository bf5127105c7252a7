#include "policy/planner.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "policy/bound.hpp"
#include "policy/schemes.hpp"
#include "policy/simulate.hpp"
#include "profiler/json_document.hpp"

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

// What several limits of one Profile share.
class Planner {
 public:
  Planner(const Profile& profile, const PlannerOptions& options)
      : profile_(profile), options_(options), instance_(profile, options.overhead_seconds), blocks_(find_blocks(profile)), pricer_(instance_), search_(instance_, blocks_, options.search) {}

  Plan priced(const Choice& choice, const std::string& scheme, int64_t limit) {
    Plan p = pricer_.plan(choice, scheme, limit);
    if (options_.simulate) p.predicted_reserved_bytes = simulate(p, profile_).peak_reserved_bytes;
    return p;
  }

  Plan scheme(const Scheme& s) { return priced(choose(s, instance_, blocks_), s.name(), kNoLimit); }

  // Empty scheme: nothing found; predicted_live_bytes is then the least found.
  Plan within(int64_t limit, Choice* taken = nullptr, std::vector<Choice> starts = {}) {
    // A real core begins a Pass with slabs and pages in use that the simulated one does not have.
    const int64_t room = limit >= (int64_t{16} << 20) ? limit - (int64_t{128} << 10) : limit;
    int64_t target = room;
    Plan p;
    for (int32_t attempt = 0; attempt < std::max(1, options_.simulate_attempts); attempt++) {
      if (attempt == 0) for (Choice& c : bound_.run(target, 0).choices) starts.push_back(std::move(c));
      const Found found = search_.run(target, starts, attempt == 0 ? 1 : 4);
      p = priced(found.choice, "auto", room);
      p.limit_bytes = limit;
      starts.push_back(found.choice);   // the next attempt begins where this one ended
      if (taken) *taken = found.choice;
      if (!found.fits) break;
      if (!options_.simulate || p.predicted_reserved_bytes <= room) {
        p.lower_bound_seconds = bound_.run(limit, p.added_seconds).seconds;
        return p;
      }
      target = std::min(target, p.predicted_live_bytes) - (p.predicted_reserved_bytes - room);
      if (target <= 0) break;
    }
    p.scheme.clear();
    return p;
  }

  int64_t needs(const Plan& p) const { return options_.simulate ? std::max(p.predicted_live_bytes, p.predicted_reserved_bytes) : p.predicted_live_bytes; }
  int64_t least() { return needs(within(1)); }
  int64_t plain_peak() const { return instance_.time.plain_peak; }

 private:
  const Profile& profile_;
  PlannerOptions options_;
  Instance instance_;
  std::vector<Block> blocks_;
  Pricer pricer_;
  Search search_;
  Bound bound_{instance_};
};

void check_limit(int64_t limit) {
  if (limit < 0 || limit >= kNoLimit) throw std::invalid_argument("plan: limit_bytes is " + std::to_string(limit) + ", must be in [0, " + std::to_string(kNoLimit) + ")");
}

}  // namespace

InfeasibleLimit::InfeasibleLimit(int64_t limit, int64_t smallest)
    : std::runtime_error("plan: nothing found within " + std::to_string(limit) + " bytes; the smallest limit found is " + std::to_string(smallest) + " bytes"),
      limit_bytes(limit), smallest_limit_bytes(smallest) {}

Plan plan(const Profile& profile, int64_t limit_bytes, const PlannerOptions& options) {
  check_limit(limit_bytes);
  Planner planner(profile, options);
  if (limit_bytes == 0) return planner.scheme({});
  Plan p = planner.within(limit_bytes);
  if (p.scheme.empty()) throw InfeasibleLimit(limit_bytes, std::min(planner.needs(p), planner.least()));
  return p;
}

Plan plan_scheme(const Profile& profile, const std::string& name, int64_t limit_bytes, const PlannerOptions& options) {
  const Scheme scheme = Scheme::parse(name);
  if (scheme.kind == Scheme::Kind::kAuto) return plan(profile, limit_bytes, options);
  return Planner(profile, options).scheme(scheme);
}

int64_t smallest_limit(const Profile& profile, const PlannerOptions& options) { return Planner(profile, options).least(); }

Frontier frontier(const Profile& profile, int32_t count, const PlannerOptions& options) {
  if (count < 1 || count > 1000) throw std::invalid_argument("frontier: count is " + std::to_string(count) + ", must be in [1, 1000]");
  Planner planner(profile, options);
  std::vector<Plan> found = {planner.scheme({})};
  Choice last{Instance(profile)};
  std::vector<Choice> starts;
  const int64_t low = planner.least(), high = planner.needs(found[0]);
  for (int32_t k = count - 2; k >= 0; k--) {
    const int64_t limit = low + (high - low) / count * k;
    Plan p = planner.within(limit, &last, starts);
    starts = {last};
    if (!p.scheme.empty()) found.push_back(std::move(p));
  }
  std::stable_sort(found.begin(), found.end(), [&](const Plan& a, const Plan& b) { return std::pair(planner.needs(a), a.added_seconds) < std::pair(planner.needs(b), b.added_seconds); });
  Frontier out;
  out.trace_signature = profile.data().trace_signature;
  for (Plan& p : found)
    if (out.plans.empty() || p.added_seconds < out.plans.back().added_seconds) out.plans.push_back(std::move(p));
  return out;
}

const Plan* Frontier::pick(int64_t limit_bytes) const {
  const Plan* best = nullptr;
  for (const Plan& p : plans) if (std::max(p.predicted_live_bytes, p.predicted_reserved_bytes) <= limit_bytes) best = &p;
  return best;
}

int64_t Frontier::smallest_limit_bytes() const { return plans.empty() ? 0 : std::max(plans[0].predicted_live_bytes, plans[0].predicted_reserved_bytes); }

std::string Frontier::to_json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Plan& p : plans) list.push_back(p.to_json());
  return write_document("Frontier", kVersion, {{"trace_signature", trace_signature}, {"plans", list}});
}

Frontier Frontier::from_json(const std::string& text) {
  const nlohmann::json body = read_document("Frontier", kVersion, text);
  const JsonField f(body, "Frontier", "body");
  f.only({"trace_signature", "plans"});
  Frontier out;
  out.trace_signature = f.field("trace_signature").unsigned_integer();
  for (const JsonField& p : f.field("plans").list(1000)) out.plans.push_back(Plan::from_json(p.text(kMaxDocumentBytes)));
  return out;
}

void check_plan(const Plan& plan, const Profile& profile) {
  plan.validate();
  const auto fail = [](const std::string& what) { throw std::invalid_argument("Plan P3: " + what); };
  if (plan.op_count != static_cast<int32_t>(profile.ops().size()) || plan.value_count != profile.data().trace_values || plan.trace_signature != profile.data().trace_signature)
    fail("made for another Trace");
  std::unordered_map<int32_t, int32_t> dense;
  for (size_t v = 0; v < profile.values().size(); v++) dense[profile.values()[v].trace_value] = static_cast<int32_t>(v);
  for (const Group& g : plan.groups) {
    const std::unordered_set<int32_t> ops(g.ops.begin(), g.ops.end()), sources(g.sources.begin(), g.sources.end());
    const auto made_here = [&](const ProfileValue& v) {
      return !v.makers.empty() && std::all_of(v.makers.begin(), v.makers.end(), [&](int32_t o) { return ops.count(o) > 0; });
    };
    for (int32_t o : g.ops) {
      if (!profile.ops()[at(o)].replayable) fail("op " + std::to_string(o) + " may not run again");
      for (int32_t r : profile.ops()[at(o)].reads) {
        const ProfileValue& v = profile.values()[at(r)];
        if (!sources.count(v.trace_value) && !made_here(v)) fail("op " + std::to_string(o) + " reads Value " + std::to_string(v.trace_value) + ", which is not there");
      }
    }
    for (int32_t r : g.retain) {
      const auto it = dense.find(r);
      if (it == dense.end() || !made_here(profile.values()[at(it->second)])) throw std::invalid_argument("Plan P4: retained Value " + std::to_string(r) + " is not made by its Group");
    }
  }
}

}  // namespace reprise
