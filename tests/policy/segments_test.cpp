// Nested checkpoints against the optimum of the classic chain, which a recurrence of its own computes.
#include "policy/segments.hpp"

#include <gtest/gtest.h>

#include "policy/blocks.hpp"
#include "policy/planner.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

constexpr int64_t kUnit = 1 << 16;
constexpr int32_t kLayers = 64;

// a_1 … a_n are needed in reverse order while layers run forward from a_0. Hold a_p: then a_(p+1) … a_n with one unit less, then layers 1 … p - 1 run again.
// Running through layers takes three units (input, the Linear's output, the ReLU's), the first layer alone two.
std::vector<std::vector<int64_t>> classic_optimum(int32_t layers, int32_t units) {
  constexpr int64_t kNever = int64_t{1} << 40;
  std::vector<std::vector<int64_t>> best(size_t(layers) + 1, std::vector<int64_t>(size_t(units) + 1, kNever));
  for (int32_t m = 0; m <= units; m++) {
    best[0][size_t(m)] = 0;
    for (int32_t n = 1; n <= layers; n++)
      for (int32_t p = 1; p <= n && m >= (n == 1 ? 2 : 3); p++)
        best[size_t(n)][size_t(m)] = std::min(best[size_t(n)][size_t(m)], best[size_t(n - p)][size_t(m - 1)] + p - 1 + best[size_t(p - 1)][size_t(m)]);
  }
  return best;
}

int64_t layers_again(const Plan& p) {
  int64_t ops = 0;
  for (const Group& g : p.groups) ops += static_cast<int64_t>(g.ops.size());
  return ops / 2;
}

TEST(Segments, ClassicOptimumIsTheKnownOne) {
  const auto best = classic_optimum(10, 12);
  EXPECT_EQ(best[10][12], 0);  // everything held, and the last two run beside it
  EXPECT_EQ(best[2][3], 0);    // a_1 held; a_2 needs two more beside it
  EXPECT_EQ(best[3][3], 1);    // a_2 held, a_3 made, then a_1 again
}

TEST(Segments, PlansOfTheChainAddNoMoreThanTheClassicOptimum) {
  const Profile profile = Profile::from_trace(testing::chain(kLayers, kUnit));
  const auto best = classic_optimum(kLayers, 40);
  PlannerOptions options;
  options.simulate = false;
  for (int32_t units : {4, 5, 6, 8, 10, 12, 16, 24, 40}) {
    const Plan found = plan(profile, units * kUnit, options);
    const int64_t least = best[kLayers][size_t(units)], slack = units < 8 ? least / 15 : 0;  // slots of the table are coarse beside so few units
    EXPECT_LE(layers_again(found), least + slack) << units << " units";
    EXPECT_LE(found.predicted_live_bytes, units * kUnit);
  }
}

}  // namespace
}  // namespace reprise
