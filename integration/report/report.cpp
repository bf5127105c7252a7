#include "integration/report/report.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "integration/report/amounts.hpp"
#include "policy/blocks.hpp"
#include "profiler/peak.hpp"
#include "profiler/utilization.hpp"

namespace reprise {
namespace {

using nlohmann::json;

json memory_json(const MemoryStats& m) {
  return {{"live_bytes", m.live_bytes},
          {"allocated_bytes", m.allocated_bytes},
          {"reserved_bytes", m.reserved_bytes},
          {"peak_live_bytes", m.peak_live_bytes},
          {"peak_allocated_bytes", m.peak_allocated_bytes},
          {"peak_reserved_bytes", m.peak_reserved_bytes},
          {"cap_bytes", m.cap_bytes},
          {"planned_hits", m.planned_hits},
          {"planned_misses", m.planned_misses}};
}

std::vector<uint8_t> kept_values(const Profile& profile, const Plan& plan) {
  std::vector<uint8_t> by_trace(size_t(plan.value_count), 0), kept(profile.values().size(), 0);
  for (int32_t v : plan.keep) by_trace[size_t(v)] = 1;
  for (size_t i = 0; i < kept.size(); i++) {
    const ProfileValue& v = profile.values()[i];
    kept[i] = v.must_keep || (size_t(v.trace_value) < by_trace.size() && by_trace[size_t(v.trace_value)]);
  }
  return kept;
}

// What each Block keeps and drops, and why.
json decisions(const Profile& profile, const Plan& plan) {
  const std::vector<Block> blocks = find_blocks(profile);
  const std::vector<uint8_t> kept = kept_values(profile, plan);
  std::vector<uint8_t> packed(size_t(profile.data().trace_values), 0);
  for (const PackedValue& p : plan.pack)
    if (size_t(p.value) < packed.size()) packed[size_t(p.value)] = 1;
  std::vector<int> replays(profile.ops().size(), 0);
  for (const Group& g : plan.groups)
    for (int32_t o : g.ops)
      if (size_t(o) < replays.size()) replays[size_t(o)]++;
  const std::vector<double> seconds = profile.replay_seconds();
  json rows = json::array();
  for (size_t b = 0; b < blocks.size(); b++) {
    int64_t kept_bytes = 0, packed_bytes = 0, dropped_bytes = 0;
    double added = 0;
    std::map<std::string, int> names;
    for (size_t i = 0; i < kept.size(); i++) {
      const ProfileValue& v = profile.values()[i];
      if (!v.saved || v.makers.empty() || v.makers.back() < blocks[b].first_op || v.makers.back() > blocks[b].last_op) continue;
      (kept[i] ? kept_bytes : packed[size_t(v.trace_value)] ? packed_bytes : dropped_bytes) += v.bytes;
    }
    for (int32_t o = blocks[b].first_op; o <= blocks[b].last_op; o++) {
      added += replays[size_t(o)] * seconds[size_t(o)];
      if (replays[size_t(o)]) names[profile.ops()[size_t(o)].name]++;
    }
    std::string again;
    for (const auto& [name, count] : names)
      again += (again.empty() ? "" : ", ") + name.substr(name.find("::") + 2) + (count > 1 ? " ×" + std::to_string(count) : "");
    const auto& regions = profile.data().regions;
    const int32_t region = profile.ops()[size_t(blocks[b].first_op)].region;
    rows.push_back({{"block", b},
                    {"family", blocks[b].family},
                    {"region", size_t(region) < regions.size() ? regions[size_t(region)] : ""},
                    {"kept_bytes", kept_bytes},
                    {"packed_bytes", packed_bytes},
                    {"dropped_bytes", dropped_bytes},
                    {"added_seconds", added},
                    {"reason", again.empty() ? "keeps all: nothing runs again" : "runs again: " + again}});
  }
  return rows;
}

json top_kept(const Profile& profile, const Plan* plan) {
  const std::vector<uint8_t> kept = plan ? kept_values(profile, *plan) : std::vector<uint8_t>(profile.values().size(), 1);
  std::vector<size_t> order;
  for (size_t i = 0; i < kept.size(); i++)
    if (kept[i] && profile.values()[i].bytes > 0 && profile.values()[i].saved) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return profile.values()[a].bytes > profile.values()[b].bytes; });
  json rows = json::array();
  for (size_t k = 0; k < std::min<size_t>(order.size(), 8); k++) {
    const ProfileValue& v = profile.values()[order[k]];
    const ProfileOp* maker = v.makers.empty() ? nullptr : &profile.ops()[size_t(v.makers.back())];
    rows.push_back({{"bytes", v.bytes},
                    {"operator", maker ? maker->name : ""},
                    {"region", maker && size_t(maker->region) < profile.data().regions.size() ? profile.data().regions[size_t(maker->region)] : ""},
                    {"reason", v.must_keep ? v.reason
                               : plan      ? "cheaper to keep than to make again within this budget"
                                           : "everything is kept"}});
  }
  return rows;
}

json utilization(const ReportInput& in) {
  const MachinePeak peak = measure_peak(std::max(1, in.profile->data().threads));
  const int64_t useful = in.profile->useful_flops();
  int64_t again = 0;
  if (in.plan)
    for (const Group& g : in.plan->groups)
      for (int32_t o : g.ops) again += in.profile->ops()[size_t(o)].flops;
  const double planned = in.measured_seconds > 0 ? in.measured_seconds : in.profile->data().pass_seconds;
  const double plain = std::max(1e-9, planned - (in.plan ? in.plan->added_seconds : 0));
  return {{"roof_flops_per_second", peak.flops_per_second},
          {"roof_source", peak.provenance},
          {"useful_flops", useful},
          {"replayed_flops", again},
          {"mfu", model_flops_utilization(useful, planned, peak)},
          {"hfu", hardware_flops_utilization(useful, again, planned, peak)},
          {"mfu_without_plan", model_flops_utilization(useful, plain, peak)}};
}

// "rank 1 of 4: plan 1f0c…, the one of rank 2, the same on all ranks"
std::string ranks_line(const json& r) {
  const std::string who = "rank " + std::to_string(r["rank"].get<int>()) + " of " + std::to_string(r["world"].get<int>()) + ": ";
  if (!r["one_plan"].get<bool>()) return who + "no common plan: " + r["note"].get<std::string>();
  return who + "plan " + r["plan_hash"].get<std::string>() + ", the one of rank " + std::to_string(r["decided_by"].get<int>()) + ", the same on all ranks";
}

}  // namespace

std::string report_as_json(const ReportInput& in) {
  json j = {{"version", 1},        {"budget_bytes", in.budget_bytes},  {"policy", in.policy},
            {"before", in.before}, {"memory", memory_json(in.memory)}, {"counters", json::parse(in.counters_json)},
            {"passes", in.passes}};
  j["sharing"] = {{"parameter_bytes", in.parameter_bytes},
                  {"peak_gathered_parameter_bytes", in.gathered_bytes},
                  {"peak_communication_buffer_bytes", in.communication_bytes}};
  if (!in.ranks_json.empty()) j["ranks"] = json::parse(in.ranks_json);
  if (!in.infeasible.empty())
    j["infeasible"] = {{"text", in.infeasible}, {"limit_bytes", in.infeasible_limit_bytes}, {"smallest_limit_bytes", in.smallest_limit_bytes}};
  if (in.profile) {
    const Profile& p = *in.profile;
    j["profile"] = {{"ops", p.ops().size()},
                    {"values", p.values().size()},
                    {"blocks", find_blocks(p).size()},
                    {"saved_bytes", p.saved_bytes()},
                    {"forward_flops", p.flops()},
                    {"learning_seconds", in.learning_seconds},
                    {"learning_peak_bytes", in.learning_peak_bytes}};
    j["utilization"] = utilization(in);
    if (!in.clock_source.empty())
      j["seconds"] = {{"source", in.clock_source}, {"dropped_records", in.clock_dropped}, {"unclaimed_seconds", in.clock_unclaimed_seconds}};
    j["regions"] = json::array();
    for (const RegionRow& r : p.regions())
      j["regions"].push_back(
          {{"name", r.name}, {"saved_bytes", r.saved_bytes}, {"forward_seconds", r.forward_seconds}, {"replay_seconds", r.replay_seconds}, {"flops", r.flops}});
    j["top_kept"] = top_kept(p, in.plan ? &*in.plan : nullptr);
  }
  if (in.plan) {
    j["plan"] = {{"scheme", in.plan->scheme},          {"kept_values", in.plan->keep.size()}, {"packed_values", in.plan->pack.size()},
                 {"groups", in.plan->groups.size()},   {"limit_bytes", in.plan->limit_bytes}, {"added_seconds", in.plan->added_seconds},
                 {"planning_seconds", in.plan_seconds}};
    j["predicted"] = {
        {"peak_live_bytes", in.predicted_peak_bytes}, {"peak_reserved_bytes", in.plan->predicted_reserved_bytes}, {"added_seconds", in.plan->added_seconds}};
    j["measured"] = {{"peak_live_bytes", in.measured_peak_bytes}, {"seconds", in.measured_seconds}, {"added_seconds", in.measured_added_seconds}};
    if (in.profile) j["decisions"] = decisions(*in.profile, *in.plan);
  }
  return j.dump(2);
}

std::string report_as_text(const std::string& text) {
  const json j = json::parse(text);
  std::string out = "reprise report\n";
  auto line = [&](const std::string& s) { out += "  " + s + "\n"; };
  const int64_t budget = j["budget_bytes"];
  line("policy " + j["policy"].get<std::string>() + ", budget " + (budget ? mebibytes(budget) : "none (measuring only)") + ", " +
       std::to_string(j["passes"].get<int64_t>()) + " Passes");
  if (!j["before"].get<std::string>().empty()) line(j["before"]);
  if (j.contains("ranks")) line(ranks_line(j["ranks"]));
  const json& m = j["memory"];
  line("memory: live " + mebibytes(m["live_bytes"]) + ", reserved " + mebibytes(m["reserved_bytes"]) + ", peak reserved " +
       mebibytes(m["peak_reserved_bytes"]));
  if (const int64_t hits = m.value("planned_hits", int64_t{0}), misses = m.value("planned_misses", int64_t{0}); hits + misses > 0)
    line("planned places: " + std::to_string(hits) + " allocations served, " + std::to_string(misses) + " by best fit instead");
  const json& s = j["sharing"];
  if (s["peak_communication_buffer_bytes"] > 0)
    line("parameters: " + mebibytes(s["parameter_bytes"]) + " of this rank's own, at most " + mebibytes(s["peak_gathered_parameter_bytes"]) +
         " gathered at a time; communication buffers: at most " + mebibytes(s["peak_communication_buffer_bytes"]));
  char buffer[240];
  if (j.contains("profile")) {
    const json& p = j["profile"];
    line("measured: " + std::to_string(p["ops"].get<int64_t>()) + " operators, " + std::to_string(p["blocks"].get<int64_t>()) + " Blocks, " +
         mebibytes(p["saved_bytes"]) + " saved for backward");
    const json& u = j["utilization"];
    std::snprintf(buffer, sizeof buffer, "MFU %.1f %%, HFU %.1f %% (without the plan: MFU %.1f %%) of %.1f GFLOP/s, ", 100 * u["mfu"].get<double>(),
                  100 * u["hfu"].get<double>(), 100 * u["mfu_without_plan"].get<double>(), u["roof_flops_per_second"].get<double>() / 1e9);
    line(buffer + u["roof_source"].get<std::string>());
  }
  if (j.contains("seconds"))
    line("seconds of operators: " + j["seconds"]["source"].get<std::string>() + ", " + std::to_string(j["seconds"]["dropped_records"].get<uint64_t>()) +
         " records lost");
  if (j.contains("infeasible")) line("does not fit: " + j["infeasible"]["text"].get<std::string>());
  if (j.contains("plan")) {
    std::snprintf(buffer, sizeof buffer, "plan %s: %lld Values kept, %lld packed, %lld Groups, planned in %.2f s",
                  j["plan"]["scheme"].get<std::string>().c_str(), (long long)j["plan"]["kept_values"].get<int64_t>(),
                  (long long)j["plan"]["packed_values"].get<int64_t>(), (long long)j["plan"]["groups"].get<int64_t>(),
                  j["plan"]["planning_seconds"].get<double>());
    line(buffer);
    line("peak above the Pass's start: predicted " + mebibytes(j["predicted"]["peak_live_bytes"]) + ", measured " +
         mebibytes(j["measured"]["peak_live_bytes"]));
    std::snprintf(buffer, sizeof buffer, "added time: predicted %.1f ms, measured %.1f ms, of a Pass of %.1f ms",
                  1e3 * j["predicted"]["added_seconds"].get<double>(), 1e3 * j["measured"]["added_seconds"].get<double>(),
                  1e3 * j["measured"]["seconds"].get<double>());
    line(buffer);
    if (j.contains("decisions"))
      for (const json& d : j["decisions"])
        line("  Block " + std::to_string(d["block"].get<int>()) + " " + d["region"].get<std::string>() + ": keeps " + mebibytes(d["kept_bytes"]) + ", packs " +
             mebibytes(d["packed_bytes"]) + ", drops " + mebibytes(d["dropped_bytes"]) + "; " + d["reason"].get<std::string>());
  }
  if (j.contains("top_kept")) {
    line("kept the most memory:");
    for (const json& k : j["top_kept"])
      line("  " + mebibytes(k["bytes"]) + " " + k["operator"].get<std::string>() + " in " + k["region"].get<std::string>() + ": " +
           k["reason"].get<std::string>());
  }
  return out;
}

}  // namespace reprise
