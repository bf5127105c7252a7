// The fast pricer beside an event-by-event execution that shares nothing with it but the Plan and the Profile.
#include "policy/pricer.hpp"

#include <gtest/gtest.h>

#include "policy/planner.hpp"
#include "policy/schemes.hpp"
#include "policy/simulate.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

class NoMemory final : public Memory {
 public:
  void* take(int64_t) override { return nullptr; }
  void give(void*, int64_t) override {}
};

TEST(Pricer, EqualsExecutionOnRandomGraphsAndPlans) {
  for (uint64_t graph = 1; graph <= 60; graph++) {
    const Profile profile = Profile::from_trace(testing::random_graph(graph, 8 + static_cast<int32_t>(graph % 40)));
    const Instance instance(profile);
    for (int seed = 0; seed < 8; seed++) {
      SCOPED_TRACE(::testing::Message() << "graph " << graph << ", random(" << seed << ")");
      Scheme scheme;
      scheme.kind = Scheme::Kind::kRandom;
      scheme.count = seed;
      const Plan p = scheme_plan(profile, scheme.name());
      check_plan(p, profile);
      NoMemory memory;
      Simulated counts;
      execute(p, profile, memory, counts);
      EXPECT_EQ(counts.peak_live_bytes, p.predicted_live_bytes);
      int64_t ops = 0;
      double seconds = 0;
      for (const Group& g : p.groups)
        for (int32_t o : g.ops) ops++, seconds += profile.ops()[static_cast<size_t>(o)].forward_seconds + 6e-6;
      EXPECT_EQ(counts.replayed_ops, ops);
      EXPECT_NEAR(p.added_seconds, seconds, 1e-9);
      EXPECT_EQ(counts.end_live_bytes, 0);
      if (HasFailure()) return;
    }
  }
}

TEST(Pricer, AllKeptIsTheMeasuredLevel) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    const Trace trace = testing::random_graph(seed, 40);
    int64_t live = 0, peak = 0;
    for (const TraceEvent& e : trace.events) {
      live += e.mark == Mark::kAllocate ? e.b : e.mark == Mark::kFree ? -e.b : 0;
      peak = std::max(peak, live);
    }
    EXPECT_EQ(scheme_plan(Profile::from_trace(trace), "none").predicted_live_bytes, peak) << seed;
  }
}

}  // namespace
}  // namespace reprise
