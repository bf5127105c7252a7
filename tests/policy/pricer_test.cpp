// The fast pricer beside an event-by-event execution that shares nothing with it but the Plan and the Profile.
#include "policy/pricer.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

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

const PackingFacts& facts(const Profile& profile, int32_t trace_value) {
  for (const ProfileValue& v : profile.values())
    if (v.trace_value == trace_value) return v.packed;
  throw std::out_of_range("no such Value");
}

double unpack_seconds(const PackingFacts& f) { return f.unpack_seconds > 0 ? f.unpack_seconds : f.pack_seconds; }

TEST(Pricer, EqualsExecutionOnRandomGraphsAndPlans) {
  size_t unpacked = 0, only_unpacked = 0, beside_ops = 0;
  for (uint64_t graph = 1; graph <= 60; graph++) {
    const Trace trace = testing::random_graph(graph, 8 + static_cast<int32_t>(graph % 40));
    const Profile profile = Profile::from_trace(graph % 2 ? trace : testing::with_packing(trace, graph));
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
      for (const PackedValue& v : p.pack) seconds += facts(profile, v.value).pack_seconds;
      for (const Group& g : p.groups) {
        for (int32_t o : g.ops) ops++, seconds += profile.ops()[static_cast<size_t>(o)].forward_seconds + 6e-6;
        for (int32_t v : g.unpack) seconds += unpack_seconds(facts(profile, v)) + 6e-6;
        unpacked += g.unpack.size(), only_unpacked += g.ops.empty(), beside_ops += !g.ops.empty() && !g.unpack.empty();
      }
      EXPECT_EQ(counts.replayed_ops, ops);
      EXPECT_NEAR(p.added_seconds, seconds, 1e-9);
      EXPECT_NEAR(added_seconds(p, profile), seconds, 1e-9);
      EXPECT_EQ(counts.end_live_bytes, 0);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(unpacked, 100U);
  EXPECT_GT(only_unpacked, 100U);
  EXPECT_GT(beside_ops, 100U);
}

// A mask: 32 KiB, made in 5 s, packed to 1 KiB in 0.5 s, unpacked in 0.25 s; the product that it is multiplied into is gone at once.
TEST(Pricer, PackedValueCostsItsSecondsAndItsFewBytes) {
  testing::Tracer t;
  const int32_t x = t.outside(64), mask = t.op("mask", {x}, 32768, 5);
  t.trace.values[static_cast<size_t>(mask)].packed = {Packing::kBits, 1024, 0.5, 0.25};
  t.save(mask);
  const int32_t y = t.op("mul", {x, mask}, 64);
  t.gone(mask);
  const int32_t wide = t.op("wide", {y}, 40000);
  t.save(y);
  t.gone(y);
  t.gone(wide);
  t.forward_end();
  t.node({y}, {y});
  t.node({mask}, {mask});
  const Profile profile = Profile::from_trace(t.finish());
  const Instance in(profile, 0);
  Choice c(in);
  c.keep[1] = c.pack[0] = 1;
  Pricer pricer(in);
  const Plan p = pricer.plan(c, "auto", kNoLimit);
  check_plan(p, profile);
  EXPECT_EQ(p.pack, (std::vector<PackedValue>{{mask, Packing::kBits}}));
  ASSERT_EQ(p.groups.size(), 1U);
  EXPECT_EQ(p.groups[0].unpack, std::vector<int32_t>{mask});
  EXPECT_TRUE(p.groups[0].ops.empty());
  EXPECT_DOUBLE_EQ(p.added_seconds, 0.75);
  EXPECT_EQ(p.predicted_live_bytes, 1024 + 64 + 40000);  // packed, y, wide; unpacked it needs 1024 + 32768
  c.pack[0] = 0;
  pricer.price(c, kNoLimit);
  EXPECT_DOUBLE_EQ(pricer.seconds(), 5);
  EXPECT_EQ(pricer.peak_bytes(), 64 + 40000);
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
