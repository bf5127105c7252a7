#include "integration/torch/agreement.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

namespace reprise::engine {
namespace {

class Hash {
 public:
  void add(uint64_t item) { value_ = (value_ ^ item) * 0x100000001b3ull; }
  void add(const std::vector<int32_t>& list) {
    add(list.size());
    for (int32_t i : list) add(static_cast<uint64_t>(i));
  }
  void add(const std::string& text) {
    for (char c : text) add(static_cast<uint64_t>(static_cast<unsigned char>(c)));
  }
  uint64_t value() const { return value_ | 1; }  // 0 is for nothing

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

std::mutex finder_mutex;
RanksFinder& finder() {
  static auto* const kept = new RanksFinder;  // never destroyed: it may hold a Python object
  return *kept;
}

std::shared_ptr<Ranks> find_ranks() {
  RanksFinder find;
  {
    std::lock_guard<std::mutex> lock(finder_mutex);
    find = finder();
  }
  return find ? find() : nullptr;
}

}  // namespace

void set_ranks_finder(RanksFinder found) {
  std::lock_guard<std::mutex> lock(finder_mutex);
  finder() = std::move(found);
}

uint64_t hash_of(const Plan& plan) {
  Hash hash;
  hash.add(plan.keep);
  for (const Group& g : plan.groups) {
    hash.add(static_cast<uint64_t>(g.trigger));
    for (const auto* list : {&g.ops, &g.retain, &g.sources, &g.unpack}) hash.add(*list);
  }
  for (const PackedValue& p : plan.pack) {
    hash.add(static_cast<uint64_t>(p.value));
    hash.add(static_cast<uint64_t>(p.form));
  }
  return hash.value();
}

uint64_t structure_of(const Profile& profile) {
  Hash hash;
  hash.add(static_cast<uint64_t>(profile.data().trace_values));
  for (const ProfileOp& op : profile.ops()) {
    hash.add(op.name);
    hash.add(op.reads);
    hash.add(op.replayable);
  }
  for (const ProfileValue& v : profile.values()) {
    hash.add(static_cast<uint64_t>(v.trace_value));
    hash.add(v.makers);
    hash.add(v.saved ? 2 : v.must_keep);
  }
  return hash.value();
}

std::string Ballot::to_json() const {
  return nlohmann::json{{"learning", learning},   {"refused", refused}, {"smallest_budget_bytes", smallest_budget_bytes},
                        {"structure", structure}, {"plan", plan},       {"tightness", tightness}}
      .dump();
}

Ballot Ballot::from_json(const std::string& text) {
  const auto j = nlohmann::json::parse(text);
  Ballot b;
  b.learning = j.at("learning");
  b.refused = j.at("refused");
  b.smallest_budget_bytes = j.at("smallest_budget_bytes");
  b.structure = j.at("structure");
  b.plan = j.at("plan");
  b.tightness = j.at("tightness");
  return b;
}

Outcome outcome_of(const std::vector<Ballot>& ballots, std::vector<int>& order) {
  order.clear();
  for (size_t r = 0; r < ballots.size(); r++)
    if (!ballots[r].refused.empty()) order.push_back(static_cast<int>(r));
  if (!order.empty()) return Outcome::kRefused;
  const auto any = [&](auto&& holds) { return std::any_of(ballots.begin(), ballots.end(), holds); };
  if (any([](const Ballot& b) { return b.learning; })) return Outcome::kWait;
  if (any([&](const Ballot& b) { return b.structure != ballots[0].structure; })) return Outcome::kOwnPlans;
  if (any([](const Ballot& b) { return b.plan == 0; })) return Outcome::kNoPlan;
  order.resize(ballots.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return ballots[size_t(a)].tightness < ballots[size_t(b)].tightness; });
  return Outcome::kOnePlan;
}

void Agreement::reset(bool wanted) {
  std::shared_ptr<Ranks> before;  // destroyed after the mutex: it may need the GIL
  std::lock_guard<std::mutex> lock(mutex_);
  wanted_ = wanted;
  passes_ = 0;
  before.swap(ranks_);
}

std::shared_ptr<Ranks> Agreement::next_pass() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    passes_++;
    if (!wanted_ || (passes_ > kFirstRounds && passes_ % kRoundEvery != 0)) return nullptr;
  }
  std::shared_ptr<Ranks> found = find_ranks(), before;  // both with no mutex held: they may need the GIL
  std::lock_guard<std::mutex> lock(mutex_);
  before.swap(ranks_);
  return ranks_ = std::move(found);
}

std::shared_ptr<Ranks> Agreement::ranks() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return ranks_;
}

}  // namespace reprise::engine
