#include "policy/planner.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>

#include "policy/schemes.hpp"
#include "policy/simulate.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

PlannerOptions quick() {
  PlannerOptions o;
  o.search.prices = 1500;
  o.simulate = false;
  return o;
}

TEST(Planner, FitsAndIsNoWorseThanTheLadder) {
  const Profile profile = Profile::from_trace(testing::chain(64, 1 << 16));
  for (const char* scheme : {"chunks(4)", "chunks(8)", "chunks(16)"}) {
    const Plan classic = scheme_plan(profile, scheme), found = plan(profile, classic.predicted_live_bytes, quick());
    EXPECT_LE(found.predicted_live_bytes, classic.predicted_live_bytes);
    EXPECT_LE(found.added_seconds, classic.added_seconds + 1e-9) << scheme;
    check_plan(found, profile);
  }
}

TEST(Planner, IsDeterministic) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 4096));
  const int64_t limit = scheme_plan(profile, "none").predicted_live_bytes / 2;
  EXPECT_EQ(plan(profile, limit, quick()).to_json(), plan(profile, limit, quick()).to_json());
}

TEST(Planner, ReservedBytesOfTheCoreFit) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 1 << 20));
  const int64_t limit = scheme_plan(profile, "none").predicted_live_bytes / 2;
  PlannerOptions o = quick();
  o.simulate = true;
  const Plan p = plan(profile, limit, o);
  EXPECT_LE(p.predicted_reserved_bytes, limit);
  EXPECT_GE(p.predicted_reserved_bytes, p.predicted_live_bytes);
  EXPECT_EQ(simulate(p, profile).peak_live_bytes, p.predicted_live_bytes);
}

// Where in its page the first live piece lies decides what the hole before it can serve.
TEST(Simulate, TheHeapBeginsWhereInItsPageTheRealOneDoes) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  testing::Tracer t;
  const int32_t x = t.outside(1), y = t.op("make", {x}, kMiB - 4096);
  t.save(y);
  t.gone(y);
  t.forward_end();
  t.node({y}, {y});
  const Profile profile = Profile::from_trace(t.finish());
  const Plan keeps = scheme_plan(profile, "none");
  const HeapShape gpu{size_t(2 * kMiB), 512, 0};
  EXPECT_EQ(simulate(keeps, profile, {{kMiB / 2, kMiB}}, gpu).peak_reserved_bytes,
            3 * kMiB);                                                              // in the page's middle: both holes are too small, another page is needed
  EXPECT_EQ(simulate(keeps, profile, {{0, kMiB}}, gpu).peak_reserved_bytes, kMiB);  // the other half of its page is enough
}

TEST(Planner, InfeasibleNamesTheSmallestLimit) {
  const Profile profile = Profile::from_trace(testing::chain(64, 1 << 16));
  try {
    plan(profile, 1 << 16, quick());
    FAIL() << "one activation cannot be enough";
  } catch (const InfeasibleLimit& e) {
    EXPECT_EQ(e.smallest_limit_bytes, 3 << 16);  // the forward's own: a layer's input, the Linear's output, the ReLU's
    EXPECT_STREQ(e.what(), "plan: nothing found within 65536 bytes; the smallest limit found is 196608 bytes");
  }
}

TEST(Planner, UsesALimitToTheByte) {
  const Profile profile = Profile::from_trace(testing::chain(64, 1 << 20));
  PlannerOptions options = quick();
  options.simulate = true;
  const Plan found = plan(profile, 40 << 20, options);
  const int64_t needs = std::max(found.predicted_live_bytes, found.predicted_reserved_bytes);
  EXPECT_LE(plan(profile, needs, options).added_seconds, found.added_seconds + 1e-9);
}

// Layers of a matrix product and a norm, whose statistics are too small to be asked about: what brings a norm back brings them too.
TEST(Planner, SmallValuesComeAndGoWithTheLargerOneBesideThem) {
  constexpr int32_t kLayers = 12;
  constexpr int64_t kMiB = 1 << 20, kStatistics = 4096;
  testing::Tracer t;
  const int32_t weight = t.outside(kMiB);
  std::vector<int32_t> product, norm;
  for (int32_t i = 0; i < kLayers; i++) {
    product.push_back(t.op("addmm", {norm.empty() ? t.outside(kMiB) : norm.back(), weight}, kMiB, 8));
    norm.push_back(t.op("native_layer_norm", {product.back()}, kMiB, 0.5, 0, kStatistics));
    for (int32_t v : {product.back(), norm.back(), norm.back() + 1}) t.save(v);
    t.gone(product.back());
    t.gone(norm.back() + 1);
    if (i > 0) t.gone(norm[size_t(i) - 1]);
  }
  t.gone(norm.back());
  t.forward_end();
  for (int32_t i = kLayers; i-- > 0;) {
    t.node({norm[size_t(i)]}, {norm[size_t(i)]});
    t.node({product[size_t(i)], norm[size_t(i)] + 1}, {product[size_t(i)], norm[size_t(i)] + 1});
  }
  const Profile profile = Profile::from_trace(t.finish());
  const int64_t products = kLayers * kMiB;
  ASSERT_LT(kStatistics, static_cast<int64_t>(PlannerOptions{}.search.small_share * static_cast<double>(2 * products)));
  const Plan found = plan(profile, products + 2 * kMiB + kStatistics, quick());  // all products, and two norms while one is made of the other
  EXPECT_NEAR(found.added_seconds, (kLayers - 1) * 0.5, 1e-3);                   // the last norm is still there when backward begins
}

// Quality: at the limits that matter no plan is further from the proven bound than it was when this was written down.
TEST(Planner, StaysNearTheBound) {
  const Profile profile = Profile::from_trace(testing::transformer(12, 1 << 16));
  Planner planner(profile, [] {
    PlannerOptions o;
    o.simulate = false;
    return o;
  }());
  const int64_t plain = planner.scheme("none").predicted_live_bytes;
  for (const auto& [percent, most] : std::vector<std::pair<int64_t, double>>{{80, 1.05}, {65, 1.05}, {50, 1.05}, {35, 1.08}, {25, 1.10}, {18, 1.35}}) {
    const Plan p = planner.plan(plain * percent / 100);
    EXPECT_GT(p.lower_bound_seconds, 0);
    EXPECT_LE(p.lower_bound_seconds, p.added_seconds);
    EXPECT_LE(p.added_seconds, most * p.lower_bound_seconds) << percent << " %: " << p.added_seconds << " s, at least " << p.lower_bound_seconds;
  }
}

TEST(Planner, RemembersAndIsMonotone) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 1 << 18));
  PlannerOptions o;
  o.search.prices = 4000;
  Planner planner(profile, o);
  const int64_t plain = planner.scheme("none").predicted_live_bytes;
  double before = 1e300;
  for (int64_t percent : {20, 30, 31, 32, 50, 51, 70}) {
    const Plan p = planner.plan(plain * percent / 100);
    EXPECT_LE(p.added_seconds, before);
    EXPECT_LE(std::max(p.predicted_live_bytes, p.predicted_reserved_bytes), plain * percent / 100);
    EXPECT_EQ(simulate(p, profile).peak_live_bytes, p.predicted_live_bytes);
    EXPECT_EQ(planner.plan(plain * percent / 100).to_json(), p.to_json());
    check_plan(p, profile);
    before = p.added_seconds;
  }
  EXPECT_LT(before, 0.1 * planner.plan(plain / 5).added_seconds);  // not just the slowest for all
}

TEST(Planner, TheSmallestLimitIsOneThatIsAnswered) {
  PlannerOptions o;
  o.search.prices = 300;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    const Profile profile = Profile::from_trace(testing::tight_graph(seed, 40));
    const int64_t least = smallest_limit(profile, o);
    const Plan p = plan(profile, least, o);
    EXPECT_LE(std::max(p.predicted_live_bytes, p.predicted_reserved_bytes), least) << seed;
    EXPECT_THROW(plan(profile, least / 2, o), InfeasibleLimit) << seed;
  }
}

// 20 limits on five models, in any order: what is answered at the end never gets slower with more bytes, and what is asked upwards never at all.
TEST(Planner, SweepsHaveNoInversions) {
  PlannerOptions o = quick();
  o.search.prices = 600;
  const std::vector<Trace> models = {testing::transformer(6, 4096), testing::with_packing(testing::transformer(4, 4096), 4), testing::chain(24, 4096),
                                     testing::tight_graph(3, 60), testing::with_packing(testing::tight_graph(8, 60), 8)};
  for (size_t m = 0; m < models.size(); m++) {
    const Profile profile = Profile::from_trace(models[m]);
    Planner planner(profile, o), upwards(profile, o);
    const int64_t low = planner.smallest_limit(), high = planner.scheme("none").predicted_live_bytes;
    const auto limit = [&](int64_t k) { return low + (high - low) * k / 20; };
    int found = 0;
    for (int64_t k = 0; k < 20; k++) planner.plan(limit(7 * k % 20));
    double before = 1e300, before_upwards = 1e300;
    for (int64_t k = 0; k < 20; k++) {
      const double seconds = planner.plan(limit(k)).added_seconds, first = upwards.plan(std::max(limit(k), upwards.smallest_limit())).added_seconds;
      EXPECT_LE(seconds, before) << "model " << m << ", limit " << k << " of 20";
      EXPECT_LE(first, before_upwards) << "model " << m << ", limit " << k << " of 20, upwards";
      found += seconds < before;
      before = seconds, before_upwards = first;
    }
    EXPECT_GE(found, 8) << "model " << m << ": the limits say nothing";
  }
}

TEST(Planner, APlanThatIsHardlyBetterIsNotWorthAChange) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 4096));
  const Plan last = plan(profile, scheme_plan(profile, "none").predicted_live_bytes / 2, quick());
  ASSERT_GT(last.added_seconds, 0);
  EXPECT_NEAR(added_seconds(last, profile), last.added_seconds, 1e-9);
  Plan found = last;
  found.added_seconds = 0.98 * last.added_seconds;
  EXPECT_FALSE(worth_changing(last, found, profile));
  found.added_seconds = 0.96 * last.added_seconds;
  EXPECT_TRUE(worth_changing(last, found, profile));
  PassSeconds slower{std::vector<double>(profile.ops().size()),
                     std::vector<double>(profile.ops().size())};  // what it makes again takes twice as long after all
  for (size_t o = 0; o < profile.ops().size(); o++) slower.replay[o] = 2 * profile.ops()[o].forward_seconds;
  found.added_seconds = last.added_seconds;
  EXPECT_TRUE(worth_changing(last, found, refine(profile, slower)));
  EXPECT_TRUE(worth_changing(last, found, Profile::from_trace(testing::transformer(5, 4096))));
}

TEST(Frontier, ServesLaterLimits) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 1 << 18));
  PlannerOptions o;
  o.search.prices = 4000;
  Planner planner(profile, o);
  const Frontier f = planner.frontier(8);
  for (const Plan& p : f.plans) {
    EXPECT_LE(p.lower_bound_seconds, p.added_seconds);
    if (p.scheme == "auto") {
      EXPECT_LE(planner.plan(p.limit_bytes).added_seconds, p.added_seconds);
    }
  }
}

TEST(Frontier, AnotherPlannerGoesOnFromIt) {
  const Profile profile = Profile::from_trace(testing::with_packing(testing::transformer(6, 1 << 18), 2));
  PlannerOptions o;
  o.search.prices = 4000;
  Planner first(profile, o);
  const int64_t limit = first.scheme("none").predicted_live_bytes / 2;
  const Plan found = first.plan(limit);
  const Frontier known = Frontier::from_json(first.known().to_json());
  PlannerOptions none = o;
  none.search.prices = 1;  // a search of its own would find nothing like it
  Planner second(profile, none, known);
  EXPECT_EQ(second.known().to_json(), known.to_json());
  EXPECT_EQ(second.plan(limit).to_json(), found.to_json());
  EXPECT_NE(Planner(profile, none).plan(limit).to_json(), found.to_json());
  EXPECT_LE(Planner(profile, o, known).plan(limit + limit / 50).added_seconds, found.added_seconds);  // A2
  EXPECT_THROW(Planner(Profile::from_trace(testing::transformer(5, 1 << 18)), o, known), std::invalid_argument);
}

TEST(Frontier, IsMonotoneAndRoundTrips) {
  const Profile profile = Profile::from_trace(testing::transformer(6, 4096));
  const Frontier f = frontier(profile, 8, quick());
  ASSERT_GE(f.plans.size(), 4U);
  for (size_t i = 1; i < f.plans.size(); i++) {
    EXPECT_LT(f.plans[i - 1].predicted_live_bytes, f.plans[i].predicted_live_bytes);
    EXPECT_GT(f.plans[i - 1].added_seconds, f.plans[i].added_seconds);
  }
  EXPECT_EQ(f.plans.back().added_seconds, 0);
  EXPECT_EQ(f.pick(f.smallest_limit_bytes()), &f.plans[0]);
  EXPECT_EQ(f.pick(f.smallest_limit_bytes() - 1), nullptr);
  EXPECT_EQ(Frontier::from_json(f.to_json()).to_json(), f.to_json());
}

TEST(Planner, TwoThousandFiveHundredOps) {
  const Profile profile = Profile::from_trace(testing::transformer(250, 4096));
  PlannerOptions o;
  o.simulate = false;
  const int64_t limit = scheme_plan(profile, "none").predicted_live_bytes / 2;
  const auto began = std::chrono::steady_clock::now();
  const Plan p = plan(profile, limit, o);
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("2,501 ops: planned in %.2f s, +%.1f s of %.1f s forward at half the bytes\n", took, p.added_seconds, 250 * 18.4);
  EXPECT_LE(p.predicted_live_bytes, limit);
}

}  // namespace
}  // namespace reprise
