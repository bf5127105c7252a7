// What tests/policy/test_oracle.py compares with an exact solver: made-up steps as flat numbers, and what the planner and the bound say to some limits of each.
//
// reprise_oracle FIRST_SEED COUNT    made-up steps: one JSON object a line
// reprise_oracle gpt BLOCKS SHARE…    a GPT of so many blocks, and limits as shares of the way from the smallest limit to plain's peak
// reprise_oracle PROFILE.json LIMIT… a Profile of your own, and limits in bytes
// All bytes are live ones (no simulated core), and no Value is too small to matter: the solver sees the same problem.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "policy/bound.hpp"
#include "policy/planner.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

using nlohmann::json;

PlannerOptions exact() {
  PlannerOptions o;
  o.search.small_share = 0;
  o.simulate = false;
  return o;
}

json step_as_numbers(const Profile& profile) {
  const Instance in(profile);
  json ops = json::array(), values = json::array(), unpacks = json::array();
  for (size_t o = 0; o < profile.ops().size(); o++)
    ops.push_back({{"seconds", in.seconds[o] + in.overhead_seconds}, {"rise", in.rise[o]}, {"reads", profile.ops()[o].reads}});
  for (size_t v = 0; v < profile.values().size(); v++)
    values.push_back({{"bytes", in.bytes[v]},
                      {"makers", profile.values()[v].makers},
                      {"saved", profile.values()[v].saved},
                      {"must_keep", profile.values()[v].must_keep},
                      {"birth", in.time.birth[v]},
                      {"gone", in.time.gone[v]},
                      {"last_unpack", in.time.last_unpack[v]},
                      {"last_release", in.time.last_release[v]},
                      {"packed_bytes", in.packed_bytes[v]},
                      {"packed_from", in.time.packed_from[v]},
                      {"pack_seconds", in.pack_seconds[v]},
                      {"unpack_seconds", in.packed_bytes[v] > 0 ? in.unpack_seconds[v] + in.overhead_seconds : 0}});
  for (const Timeline::Unpack& u : in.time.unpacks) unpacks.push_back({u.cell, u.value});
  return {{"cells", in.time.cells}, {"base_start", in.time.base_start}, {"base_max", in.time.base_max}, {"ops", ops}, {"values", values},
          {"unpacks", unpacks},     {"plain_bytes", in.time.plain_peak}};
}

// Each limit is asked of a Planner that knows nothing: no answer profits from another limit's.
json answers(const Profile& profile, const std::vector<int64_t>& limits) {
  const Instance in(profile);
  json out = json::array();
  for (int64_t limit : limits) {
    json row = {{"limit_bytes", limit}, {"added_seconds", nullptr}, {"bound_seconds", Bound(in).run(limit, 0).seconds}};
    try {
      const Plan p = plan(profile, limit, exact());
      check_plan(p, profile);
      row["added_seconds"] = p.added_seconds;
      row["peak_bytes"] = p.predicted_live_bytes;
      row["lower_bound_seconds"] = p.lower_bound_seconds;
      row["plan"] = json::parse(p.to_json());
    } catch (const InfeasibleLimit& e) {
      row["smallest_limit_bytes"] = e.smallest_limit_bytes;
    }
    out.push_back(row);
  }
  return out;
}

// Sizes of 6 to 17 operators, of two kinds; with the nodes of backward at most 40. In every fourth some Values have packed forms.
Profile made_up(uint64_t seed) {
  const auto ops = static_cast<int32_t>(6 + seed * 7 % 12);
  const Trace trace = seed % 3 == 0 ? testing::random_graph(seed, ops) : testing::tight_graph(seed, ops);
  return Profile::from_trace(seed % 4 == 0 ? testing::with_packing(trace, seed) : trace);
}

void print_made_up(uint64_t seed) {
  const Profile profile = made_up(seed);
  const int64_t low = smallest_limit(profile, exact()), high = Timeline::of(profile).plain_peak;
  json row = step_as_numbers(profile);
  row["seed"] = seed;
  row["smallest_limit_bytes"] = low;
  row["answers"] = answers(profile, {low + (high - low) / 5, low + (high - low) * 3 / 5});
  std::printf("%s\n", row.dump().c_str());
}

void print_gpt(int32_t blocks, int count, char** shares) {
  const Profile profile = Profile::from_trace(testing::transformer(blocks, 4096));
  const auto low = smallest_limit(profile, exact()), high = Timeline::of(profile).plain_peak;
  std::vector<int64_t> limits;
  for (int i = 0; i < count; i++) limits.push_back(low + static_cast<int64_t>(std::stod(shares[i]) * static_cast<double>(high - low)));
  json row = step_as_numbers(profile);
  row["answers"] = answers(profile, limits);
  std::printf("%s\n", row.dump().c_str());
}

void print_own(const char* name, int count, char** limits) {
  std::ifstream file(name);
  if (!file) throw std::invalid_argument(std::string("cannot read ") + name);
  std::stringstream text;
  text << file.rdbuf();
  const Profile profile = Profile::from_json(text.str());
  std::vector<int64_t> asked;
  for (int i = 0; i < count; i++) asked.push_back(std::stoll(limits[i]));
  json row = step_as_numbers(profile);
  row["answers"] = answers(profile, asked);
  std::printf("%s\n", row.dump().c_str());
}

}  // namespace
}  // namespace reprise

int main(int count, char** arguments) {
  try {
    const std::string first = count > 1 ? arguments[1] : "";
    if (count == 3 && first.find_first_not_of("0123456789") == std::string::npos) {
      for (uint64_t i = 0; i < std::stoull(arguments[2]); i++) reprise::print_made_up(std::stoull(first) + i);
    } else if (count >= 4 && first == "gpt") {
      reprise::print_gpt(std::stoi(arguments[2]), count - 3, arguments + 3);
    } else if (count >= 3) {
      reprise::print_own(arguments[1], count - 2, arguments + 2);
    } else {
      std::fprintf(stderr, "usage: reprise_oracle FIRST_SEED COUNT | gpt BLOCKS SHARE... | PROFILE.json LIMIT...\n");
      return 2;
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "reprise_oracle: %s\n", e.what());
    return 1;
  }
}
