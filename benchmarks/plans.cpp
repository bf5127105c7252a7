// What benchmarks/plans.py prints, without torch: reprise_plans [--no-packing] [--effort TIMES] FOLDER SHARE… reads the Profiles recorded there, plans for each share of plain's
// activation bytes and for the smallest limit, each alone ("plan") and after a Frontier ("after"), and prints one JSON object a line.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "policy/planner.hpp"
#include "policy/schemes.hpp"

namespace reprise {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& name) {
  std::ifstream file(name);
  if (!file) throw std::invalid_argument("cannot read " + name.string());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

// Equal Ops (one signature) share the median of their CPU seconds, so that noise decides nothing between equal Blocks.
Profile recorded(const fs::path& folder, bool packing) {
  ProfileData data = Profile::from_json(read(folder / "profile.json")).data();
  const auto passes = nlohmann::json::parse(read(folder / "seconds.json")).at("operator_seconds").get<std::vector<std::vector<double>>>();
  std::map<uint64_t, std::vector<double>> seen;
  for (size_t o = 0; o < data.ops.size(); o++)
    for (const auto& pass : passes) seen[data.ops[o].signature].push_back(pass.at(o));
  for (ProfileOp& o : data.ops) o.forward_seconds = median(seen[o.signature]), o.replay_seconds = 0;
  if (!packing)
    for (ProfileValue& v : data.values) v.packed = {};
  return Profile(std::move(data));
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }  // one thread; a shared machine's wall clock would count other work

nlohmann::json answer(const char* name, double began, const std::function<Plan()>& ask) {
  nlohmann::json out = {{name, nullptr}};
  try {
    const Plan p = ask();
    out[name] = {{"limit_bytes", p.limit_bytes},
                 {"predicted_live_bytes", p.predicted_live_bytes},
                 {"predicted_reserved_bytes", p.predicted_reserved_bytes},
                 {"added_seconds", p.added_seconds},
                 {"lower_bound_seconds", p.lower_bound_seconds},
                 {"groups", p.groups.size()},
                 {"kept", p.keep.size()}};
  } catch (const InfeasibleLimit& e) {
    out["smallest_limit_bytes"] = e.smallest_limit_bytes;
  }
  out[std::string(name) + "_seconds"] = cpu_seconds() - began;
  return out;
}

int run(int count, char** arguments) {
  const bool packing = count < 2 || std::string(arguments[1]) != "--no-packing";
  if (!packing) count--, arguments++;
  PlannerOptions options;
  if (count > 3 && std::string(arguments[1]) == "--effort") {
    options.search.effort = std::stod(arguments[2]);
    count -= 2, arguments += 2;
  }
  if (count < 2) {
    std::fprintf(stderr,
                 "usage: reprise_plans [--no-packing] [--effort TIMES] FOLDER SHARE...\n       without a SHARE: only whether this build reads the folder\n");
    return 2;
  }
  const Profile profile = recorded(arguments[1], packing);
  if (count == 2) return 0;
  const int64_t plain = scheme_plan(profile, "none").predicted_live_bytes;
  double forward = 0;
  for (const ProfileOp& o : profile.ops()) forward += o.forward_seconds;
  Planner after(profile, options);
  double began = cpu_seconds();
  const Frontier f = after.frontier();
  const nlohmann::json common = {{"plain_bytes", plain},
                                 {"forward_seconds", forward},
                                 {"ops", profile.ops().size()},
                                 {"frontier_plans", f.plans.size()},
                                 {"frontier_seconds", cpu_seconds() - began}};
  for (int i = 2; i <= count; i++) {
    const double share = i < count ? std::stod(arguments[i]) : 0;  // the last: the smallest limit
    const int64_t limit = i < count ? static_cast<int64_t>(share * static_cast<double>(plain)) : after.smallest_limit();
    nlohmann::json row = common;
    row["share"] = share;
    row.update(answer("plan", cpu_seconds(), [&] { return plan(profile, limit, options); }));
    row.update(answer("after", cpu_seconds(), [&] { return after.plan(limit); }));
    std::printf("%s\n", row.dump().c_str());
  }
  return 0;
}

}  // namespace
}  // namespace reprise

int main(int count, char** arguments) {
  try {
    return reprise::run(count, arguments);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "reprise_plans: %s\n", e.what());
    return 1;
  }
}
