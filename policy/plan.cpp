#include "policy/plan.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <unordered_set>

#include "profiler/json_document.hpp"

namespace reprise {
namespace {

using nlohmann::json;

void require(bool holds, const char* number, const std::string& what) {
  if (!holds) throw std::invalid_argument(std::string("Plan ") + number + ": " + what);
}

void check_range(const std::vector<int32_t>& list, int32_t end, const std::string& what) {
  for (int32_t i : list) require(i >= 0 && i < end, "P1", what + " " + std::to_string(i) + " is outside [0, " + std::to_string(end) + ")");
}

void check_group(const Plan& p, size_t index) {
  const Group& g = p.groups[index];
  const std::string where = "Group " + std::to_string(index) + ":";
  check_range({g.trigger}, p.value_count, where + " trigger");
  check_range(g.ops, p.op_count, where + " op");
  check_range(g.retain, p.value_count, where + " retained Value");
  check_range(g.sources, p.value_count, where + " source");
  check_range(g.unpack, p.value_count, where + " unpacked Value");
  const bool unpacks_trigger = std::find(g.unpack.begin(), g.unpack.end(), g.trigger) != g.unpack.end();
  require(!g.ops.empty() || unpacks_trigger, "P4", where + " no op makes the trigger");
  for (size_t i = 1; i < g.ops.size(); i++)
    require(g.ops[i - 1] < g.ops[i], "P2", where + " op " + std::to_string(g.ops[i]) + " comes after op " + std::to_string(g.ops[i - 1]));
  require(std::count(g.retain.begin(), g.retain.end(), g.trigger) == 1, "P4", where + " trigger " + std::to_string(g.trigger) + " is not retained once");
}

constexpr int64_t kMaxBytes = int64_t{1} << 50;
constexpr size_t kMaxEntries = 4'000'000;
constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

}  // namespace

void Plan::validate() const {
  require(value_count >= 0 && op_count >= 0, "P1", "a count is negative");
  check_range(keep, value_count, "kept Value");
  for (size_t i = 1; i < keep.size(); i++) require(keep[i - 1] < keep[i], "P5", "keep is not sorted at entry " + std::to_string(i));
  std::unordered_set<int32_t> held(keep.begin(), keep.end()), packed;
  for (size_t i = 0; i < pack.size(); i++) {
    check_range({pack[i].value}, value_count, "packed Value");
    require(i == 0 || pack[i - 1].value < pack[i].value, "P6", "pack is not sorted at entry " + std::to_string(i));
    require(pack[i].form != Packing::kNone, "P6", "Value " + std::to_string(pack[i].value) + " is packed to nothing");
    require(held.count(pack[i].value) == 0, "P6", "Value " + std::to_string(pack[i].value) + " is kept and packed");
    packed.insert(pack[i].value);
  }
  for (size_t g = 0; g < groups.size(); g++) {
    check_group(*this, g);
    for (int32_t s : groups[g].sources)
      require(held.count(s) > 0, "P5", "Group " + std::to_string(g) + ": source " + std::to_string(s) + " is neither kept nor retained by an earlier Group");
    for (int32_t u : groups[g].unpack)
      require(packed.count(u) > 0, "P6", "Group " + std::to_string(g) + ": unpacked Value " + std::to_string(u) + " is not packed");
    held.insert(groups[g].retain.begin(), groups[g].retain.end());
  }
}

std::string Plan::to_json() const {
  json list = json::array(), packed = json::array();
  for (const Group& g : groups) list.push_back({{"trigger", g.trigger}, {"ops", g.ops}, {"retain", g.retain}, {"sources", g.sources}, {"unpack", g.unpack}});
  for (const PackedValue& p : pack) packed.push_back({{"value", p.value}, {"form", name_of(p.form)}});
  return write_document("Plan", kVersion,
                        {{"scheme", scheme},
                         {"trace_signature", trace_signature},
                         {"value_count", value_count},
                         {"op_count", op_count},
                         {"keep", keep},
                         {"pack", packed},
                         {"groups", list},
                         {"limit_bytes", limit_bytes},
                         {"predicted_live_bytes", predicted_live_bytes},
                         {"predicted_reserved_bytes", predicted_reserved_bytes},
                         {"added_seconds", added_seconds},
                         {"lower_bound_seconds", lower_bound_seconds}});
}

Plan Plan::from_json(const std::string& text) {
  const json body = read_document("Plan", kVersion, text);
  const JsonField f(body, "Plan", "body");
  f.only({"scheme", "trace_signature", "value_count", "op_count", "keep", "pack", "groups", "limit_bytes", "predicted_live_bytes", "predicted_reserved_bytes",
          "added_seconds", "lower_bound_seconds"});
  Plan p;
  p.scheme = f.field("scheme").text(200);
  p.trace_signature = f.field("trace_signature").unsigned_integer();
  p.value_count = static_cast<int32_t>(f.field("value_count").integer(0, kMaxIndex));
  p.op_count = static_cast<int32_t>(f.field("op_count").integer(0, kMaxIndex));
  p.keep = f.field("keep").indices(kMaxEntries, p.value_count);
  for (const JsonField& x : f.field("pack").list(kMaxEntries)) {
    x.only({"value", "form"});
    p.pack.push_back(
        {static_cast<int32_t>(x.field("value").integer(0, int64_t{p.value_count} - 1)), static_cast<Packing>(x.field("form").one_of(kPackingNames))});
  }
  for (const JsonField& g : f.field("groups").list(kMaxEntries)) {
    g.only({"trigger", "ops", "retain", "sources", "unpack"});
    p.groups.push_back({static_cast<int32_t>(g.field("trigger").integer(0, int64_t{p.value_count} - 1)), g.field("ops").indices(kMaxEntries, p.op_count),
                        g.field("retain").indices(kMaxEntries, p.value_count), g.field("sources").indices(kMaxEntries, p.value_count),
                        g.field("unpack").indices(kMaxEntries, p.value_count)});
  }
  p.limit_bytes = f.field("limit_bytes").integer(0, kMaxBytes);
  p.predicted_live_bytes = f.field("predicted_live_bytes").integer(0, kMaxBytes);
  p.predicted_reserved_bytes = f.field("predicted_reserved_bytes").integer(0, kMaxBytes);
  p.added_seconds = f.field("added_seconds").number(0, 1e9);
  p.lower_bound_seconds = f.field("lower_bound_seconds").number(0, 1e9);
  p.validate();
  return p;
}

}  // namespace reprise
