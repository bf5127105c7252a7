#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "policy/planner.hpp"
#include "profiler/json_document.hpp"

namespace reprise {
namespace {
size_t at(int32_t i) { return static_cast<size_t>(i); }
}  // namespace

const Plan* Frontier::pick(int64_t limit_bytes) const {
  const Plan* best = nullptr;
  for (const Plan& p : plans)
    if (std::max(p.predicted_live_bytes, p.predicted_reserved_bytes) <= limit_bytes) best = &p;
  return best;
}

int64_t Frontier::smallest_limit_bytes() const { return plans.empty() ? 0 : std::max(plans[0].predicted_live_bytes, plans[0].predicted_reserved_bytes); }

std::string Frontier::to_json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Plan& p : plans) list.push_back(p.to_json());
  return write_document("Frontier", kVersion, {{"trace_signature", trace_signature}, {"plans", list}, {"asked", asked}});
}

Frontier Frontier::from_json(const std::string& text) {
  const nlohmann::json body = read_document("Frontier", kVersion, text);
  const JsonField f(body, "Frontier", "body");
  f.only({"trace_signature", "plans", "asked"});
  Frontier out;
  out.trace_signature = f.field("trace_signature").unsigned_integer();
  for (const JsonField& p : f.field("plans").list(100'000)) out.plans.push_back(Plan::from_json(p.text(kMaxDocumentBytes)));
  for (const JsonField& limit : f.field("asked").list(1'000'000)) out.asked.push_back(limit.integer(0, kNoLimit));
  return out;
}

double added_seconds(const Plan& plan, const Profile& profile, double overhead) {
  const Instance in(profile, overhead);
  std::unordered_map<int32_t, size_t> dense;
  for (size_t v = 0; v < profile.values().size(); v++) dense[profile.values()[v].trace_value] = v;
  double sum = 0;
  for (const PackedValue& p : plan.pack) sum += in.pack_seconds[dense.at(p.value)];
  for (const Group& g : plan.groups) {
    for (int32_t o : g.ops) sum += in.seconds[at(o)] + overhead;
    for (int32_t u : g.unpack) sum += in.unpack_seconds[dense.at(u)] + overhead;
  }
  return sum;
}

bool worth_changing(const Plan& last, const Plan& found, const Profile& profile) {
  constexpr double kHardly = 0.03;  // of the added seconds
  try {
    check_plan(last, profile);
  } catch (const std::invalid_argument&) {
    return true;
  }
  return found.added_seconds < (1 - kHardly) * added_seconds(last, profile);
}

void check_plan(const Plan& plan, const Profile& profile) {
  plan.validate();
  const auto fail = [](const std::string& what) { throw std::invalid_argument("Plan P3: " + what); };
  if (plan.op_count != static_cast<int32_t>(profile.ops().size()) || plan.value_count != profile.data().trace_values ||
      plan.trace_signature != profile.data().trace_signature)
    fail("made for another Trace");
  std::unordered_map<int32_t, int32_t> dense;
  for (size_t v = 0; v < profile.values().size(); v++) dense[profile.values()[v].trace_value] = static_cast<int32_t>(v);
  for (const PackedValue& p : plan.pack) {
    const auto it = dense.find(p.value);
    if (it == dense.end() || profile.values()[at(it->second)].packed.form != p.form)
      throw std::invalid_argument("Plan P6: Value " + std::to_string(p.value) + " has no packed form \"" + name_of(p.form) + "\"");
  }
  for (const Group& g : plan.groups) {
    const std::unordered_set<int32_t> ops(g.ops.begin(), g.ops.end()), sources(g.sources.begin(), g.sources.end());
    const auto made_here = [&](const ProfileValue& v) {
      if (std::find(g.unpack.begin(), g.unpack.end(), v.trace_value) != g.unpack.end()) return true;
      return !v.makers.empty() && std::all_of(v.makers.begin(), v.makers.end(), [&](int32_t o) { return ops.count(o) > 0; });
    };
    for (int32_t o : g.ops) {
      if (!profile.ops()[at(o)].replayable) fail("op " + std::to_string(o) + " may not run again");
      for (int32_t r : profile.ops()[at(o)].reads) {
        const ProfileValue& v = profile.values()[at(r)];
        if (!sources.count(v.trace_value) && !made_here(v))
          fail("op " + std::to_string(o) + " reads Value " + std::to_string(v.trace_value) + ", which is not there");
      }
    }
    for (int32_t r : g.retain) {
      const auto it = dense.find(r);
      if (it == dense.end() || !made_here(profile.values()[at(it->second)]))
        throw std::invalid_argument("Plan P4: retained Value " + std::to_string(r) + " is not made by its Group");
    }
  }
}

}  // namespace reprise
