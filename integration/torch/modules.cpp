// The public surface: which modules a Plan runs again, for people who wrap those and want nothing else at run time.
#include <algorithm>
#include <set>
#include <stdexcept>

#include "integration/cpp/reprise.hpp"
#include "integration/torch/controller.hpp"
#include "policy/blocks.hpp"

namespace reprise {

using engine::Controller;

namespace {

std::string parent_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

bool holds(const std::string& module, const std::string& region) { return module.empty() || region == module || region.starts_with(module + "."); }

// The largest module that holds the Block's Ops and no others. Ops without parameters bear the name of what lies around them: they decide nothing.
std::string module_of_block(const std::vector<std::string>& region_of_op, const Block& block) {
  const auto first = region_of_op.begin() + block.first_op, last = region_of_op.begin() + block.last_op + 1;
  std::set<std::string> inside(first, last), outside(region_of_op.begin(), first);
  outside.insert(last, region_of_op.end());
  std::string name;
  bool any = false;
  for (const std::string& region : inside) {
    const bool unspecific = std::any_of(inside.begin(), inside.end(), [&](const std::string& r) { return r != region && holds(region, r); });
    if (unspecific) continue;
    if (!any) name = region;
    any = true;
    while (!holds(name, region)) name = parent_of(name);
  }
  const auto alone = [&](const std::string& module) {
    return std::none_of(outside.begin(), outside.end(), [&](const std::string& r) { return holds(module, r); });
  };
  while (!name.empty() && !parent_of(name).empty() && alone(parent_of(name))) name = parent_of(name);
  return name;
}

}  // namespace

std::vector<std::string> replayed_modules(const std::string& plan_json) {
  const Plan plan = Plan::from_json(plan_json);
  auto known = Controller::get().last_known();
  if (!known || !known->profile || known->profile->data().trace_signature != plan.trace_signature)
    throw std::invalid_argument("argument plan: it was made for another model or another step: its signature is " + std::to_string(plan.trace_signature) +
                                ", which is not that of the step seen last");
  const Profile& profile = *known->profile;
  std::vector<bool> again(profile.ops().size(), false);
  for (const Group& g : plan.groups)
    for (int32_t o : g.ops) again[size_t(o)] = true;
  std::vector<std::string> region_of_op, names;
  for (const ProfileOp& op : profile.ops()) region_of_op.push_back(profile.data().regions[size_t(op.region)]);
  for (const Block& b : find_blocks(profile))
    if (std::find(again.begin() + b.first_op, again.begin() + b.last_op + 1, true) != again.begin() + b.last_op + 1)
      names.push_back(module_of_block(region_of_op, b));
  return names;
}

}  // namespace reprise
