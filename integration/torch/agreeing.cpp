// A round among ranks: what one rank brings to it and what it takes from it. The rules are in agreement.hpp; nothing here asks for a mutex of the engine.
#include <cstdio>

#include "integration/torch/controller.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/planning.hpp"
#include "policy/planner.hpp"
#include "profiler/timeline.hpp"

namespace reprise::engine {
namespace {

Ballot ballot_of(const Known& known, const Config& config, int64_t start_live_bytes) {
  Ballot ballot;
  ballot.learning = !can_be_planned(known, config);
  if (ballot.learning) return ballot;
  ballot.structure = structure_of(*known.profile);
  ballot.plan = known.following ? hash_of(known.following->plan) : 0;
  const int64_t limit_bytes = limit_for(known, config, start_live_bytes);
  ballot.tightness = limit_bytes > 0 ? double(limit_bytes) / double(std::max<int64_t>(1, Timeline::of(*known.profile).plain_peak)) : 1e9;
  if (known.raise) std::tie(ballot.refused, ballot.smallest_budget_bytes) = infeasible_words(known.first_refused + "; " + known.infeasible, known);
  return ballot;
}

// "rank 2 of 4 cannot train within its budget: …": the first that refuses, and who else does.
std::string refusal(const std::vector<Ballot>& ballots, const std::vector<int>& refusing) {
  std::string text = "rank " + std::to_string(refusing[0]) + " of " + std::to_string(ballots.size()) +
                     " cannot train within its budget: " + ballots[size_t(refusing[0])].refused;
  for (size_t i = 1; i < refusing.size(); i++) text += (i == 1 ? "; nor can rank " : ", ") + std::to_string(refusing[i]);
  return text;
}

}  // namespace

std::optional<std::pair<std::string, int64_t>> Controller::agree(Ranks& ranks, Known& known, const Config& config, int64_t start_live_bytes) const {
  const bool wants = known.raise || wants_plan(known, config, start_live_bytes);
  if (!ranks.any(wants)) return std::nullopt;
  const bool applied = known.planned_limit == INT64_MAX;  // the user's own Plan
  if (can_be_planned(known, config) && !applied) make_plan(known, start_live_bytes);
  std::vector<Ballot> ballots;
  for (const std::string& text : ranks.gather(ballot_of(known, config, start_live_bytes).to_json())) ballots.push_back(Ballot::from_json(text));
  const Ballot& mine = ballots[size_t(ranks.rank())];
  Agreed agreed;
  agreed.rank = ranks.rank();
  agreed.world = ranks.world();
  agreed.structure = mine.structure;
  std::vector<int> order;
  switch (outcome_of(ballots, order)) {
    case Outcome::kRefused: known.raise = false; return std::pair(refusal(ballots, order), ballots[size_t(order[0])].smallest_budget_bytes);
    case Outcome::kWait:
      agreed.note = "a rank is still learning this step";
      if (!applied) known.following.reset(), known.planned_limit = -1;
      break;
    case Outcome::kNoPlan:
      agreed.note = "for a rank no plan fits, but the step as it was learned";
      if (!applied) known.following.reset();
      break;
    case Outcome::kOwnPlans: agreed.note = "the ranks run different steps; each follows a plan of its own"; break;
    case Outcome::kOnePlan: follow_one_plan(ranks, known, order, agreed); break;
  }
  agreed.plan = known.following ? hash_of(known.following->plan) : 0;
  known.agreed = agreed;
  return std::nullopt;
}

// The tightest rank's Plan, where it fits everywhere; else the next tightest's, and so on.
void Controller::follow_one_plan(Ranks& ranks, Known& known, const std::vector<int>& order, Agreed& agreed) const {
  const auto own = known.following;
  const int64_t limit_bytes = own->plan.limit_bytes;
  const StartLayout start = start_layout();
  for (int candidate : order) {
    const std::string text = ranks.gather(candidate == ranks.rank() ? own->plan.to_json() : "")[size_t(candidate)];
    std::shared_ptr<const Following> adopted = own;
    bool fits = true;
    if (candidate != ranks.rank()) try {
        adopted = Following::of(known.planner->adopted(Plan::from_json(text), limit_bytes, start), known.match, known.structure);
        fits = limit_bytes == 0 || adopted->plan.predicted_reserved_bytes <= limit_bytes;
      } catch (const std::invalid_argument& error) {
        std::fprintf(stderr, "reprise: the plan of rank %d cannot be followed here: %s\n", candidate, error.what());
        fits = false;
      }
    if (ranks.any(!fits)) continue;
    known.following = adopted;
    agreed.one_plan = true;
    agreed.decided_by = candidate;
    return;
  }
  agreed.note = "no rank's plan fits on all others; each follows its own";
}

}  // namespace reprise::engine
