// The proven bound against everything there is: all cuts of small graphs, all Choices of small traces.
#include "policy/bound.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "policy/planner.hpp"
#include "policy/search.hpp"
#include "policy/simulate.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

TEST(MinCut, IsTheLeastOfAllCuts) {
  uint64_t seed = 7;
  const auto next = [&seed](uint64_t n) { return (seed = seed * 6364136223846793005ULL + 1442695040888963407ULL, (seed >> 33) % n); };
  for (int graph = 0; graph < 200; graph++) {
    const int32_t nodes = 4 + static_cast<int32_t>(next(7));
    MinCut cut(nodes);
    std::vector<std::array<int64_t, 3>> edges;
    for (uint64_t e = next(50); e-- > 0;) {
      const auto a = static_cast<int32_t>(next(size_t(nodes))), b = static_cast<int32_t>(next(size_t(nodes)));
      edges.push_back({a, b, static_cast<int64_t>(next(50))});
      cut.edge(a, b, edges.back()[2]);
    }
    const auto cost = [&](auto&& inside) {
      int64_t sum = 0;
      for (const auto& [a, b, capacity] : edges) sum += inside(a) && !inside(b) ? capacity : 0;
      return sum;
    };
    int64_t least = INT64_MAX;
    for (uint32_t set = 0; set < 1U << nodes; set++)
      if ((set & 1) && !(set & 2)) least = std::min(least, cost([&](int64_t n) { return (set >> n & 1) != 0; }));
    ASSERT_EQ(cut.solve(0, 1), least) << "graph " << graph;
    ASSERT_EQ(cost([&](int64_t n) { return cut.source_side(static_cast<int32_t>(n)); }), least) << "graph " << graph;
  }
}

// The shortest way takes 1 -> 2; two units pass only if it gives that edge back.
TEST(MinCut, TakesFlowBack) {
  MinCut cut(8);
  for (const auto& [a, b] : std::vector<std::pair<int32_t, int32_t>>{{0, 2}, {2, 3}, {3, 1}, {0, 4}, {4, 5}, {5, 3}, {2, 6}, {6, 7}, {7, 1}}) cut.edge(a, b, 1);
  EXPECT_EQ(cut.solve(0, 1), 2);
}

int choice_bits(const Instance& in) {
  const auto packable = std::count_if(in.packed_bytes.begin(), in.packed_bytes.end(), [](int64_t b) { return b > 0; });
  return 2 * in.values() + in.ops() - 1 + static_cast<int>(packable);
}

// Peak and least seconds of every Choice that no other beats in both: every keep, every pack, two memo levels, every cut. In order of bytes.
std::vector<std::pair<int64_t, double>> everything(const Instance& in) {
  std::map<int64_t, double> least;
  Pricer pricer(in);
  const int bits = choice_bits(in);
  for (uint32_t word = 0; word < 1U << bits; word++) {
    Choice c(in);
    uint32_t rest = word;
    const auto bit = [&rest] {
      const uint32_t b = rest & 1;
      rest >>= 1;
      return static_cast<uint8_t>(b);
    };
    for (uint8_t& x : c.keep) x |= bit();
    for (uint8_t& x : c.memo) x = bit();
    for (size_t v = 0; v < c.pack.size(); v++) c.pack[v] = in.packed_bytes[v] > 0 ? bit() : 0;
    for (size_t o = 1; o < c.cut.size(); o++) c.cut[o] = bit();
    pricer.price(c, kNoLimit);
    const auto [it, fresh] = least.emplace(pricer.peak_bytes(), pricer.seconds());
    if (!fresh) it->second = std::min(it->second, pricer.seconds());
  }
  std::vector<std::pair<int64_t, double>> out;
  for (const auto& [peak, seconds] : least)
    if (out.empty() || seconds < out.back().second - 1e-9) out.emplace_back(peak, seconds);
  return out;
}

PlannerOptions quick() {
  PlannerOptions o;
  o.search.prices = 4000;
  o.search.small_share = 0;
  o.simulate = false;
  return o;
}

struct Seen {
  int limits = 0, positive = 0, tight = 0, packed = 0;
};

Seen check_against_everything(uint64_t seeds, const std::function<Trace(uint64_t)>& trace_of) {
  Seen seen;
  for (uint64_t seed = 1; seed <= seeds; seed++) {
    const Profile profile = Profile::from_trace(trace_of(seed));
    const Instance in(profile);
    if (choice_bits(in) > 17) continue;
    for (const auto& [limit, least] : everything(in)) {
      if (least <= 0) continue;
      SCOPED_TRACE(::testing::Message() << "seed " << seed << " within " << limit << " bytes");
      const double bound = Bound(in).run(limit, least).seconds;
      EXPECT_LE(bound, least);
      const Plan found = plan(profile, limit, quick());
      EXPECT_LE(found.added_seconds, least + 1e-9);
      EXPECT_LE(found.predicted_live_bytes, limit);
      EXPECT_LE(found.lower_bound_seconds, found.added_seconds);
      EXPECT_EQ(simulate(found, profile).peak_live_bytes, found.predicted_live_bytes);
      seen.limits++, seen.positive += bound > 0, seen.tight += bound > 0.9 * least, seen.packed += !found.pack.empty();
    }
  }
  std::printf("%d limits, bound above 0 in %d, within 10 %% of the least in %d; plans that pack %d\n", seen.limits, seen.positive, seen.tight, seen.packed);
  return seen;
}

TEST(Bound, NoChoiceOfSmallTracesAddsLessAndThePlannerFindsTheLeast) {
  const Seen seen = check_against_everything(30, [](uint64_t seed) { return testing::tight_graph(seed, 6); });
  EXPECT_GE(seen.limits, 40);
  EXPECT_GE(2 * seen.positive, seen.limits);
}

TEST(Bound, NorWherePackingIsAChoice) {
  const Seen seen = check_against_everything(60, [](uint64_t seed) { return testing::with_packing(testing::tight_graph(seed, 5), seed); });
  EXPECT_GE(seen.packed, 20);
}

// B3: lines found at one limit bound every other; and going on from the limit before finds nearly what a start of its own does.
TEST(Bound, LinesHoldForEveryLimit) {
  double next = 0, fresh = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    const Profile profile = Profile::from_trace(testing::tight_graph(seed, 6));
    const Instance in(profile);
    if (choice_bits(in) > 17) continue;
    const auto all = everything(in);
    Bound sweep(in);
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
      if (it->second <= 0) continue;
      next += sweep.run_next(it->first, it->second).seconds;
      fresh += Bound(in).run(it->first, it->second).seconds;
      for (const auto& [limit, least] : all) EXPECT_LE(sweep.at_least(limit), least) << "seed " << seed << ", " << limit << " bytes after " << it->first;
    }
  }
  std::printf("bounds of a sweep add up to %.3f of those found alone\n", next / fresh);
  EXPECT_GE(next, 0.9 * fresh);
}

TEST(Bound, GrowsAsTheLimitShrinks) {
  const Profile profile = Profile::from_trace(testing::transformer(8, 4096));
  const Instance in(profile);
  double before = 0;
  for (int64_t percent : {100, 80, 60, 40, 20}) {
    const double now = Bound(in).run(in.time.plain_peak * percent / 100, 0).seconds;
    EXPECT_GE(now, before);
    before = now;
  }
  EXPECT_GT(before, 0);
}

}  // namespace
}  // namespace reprise
