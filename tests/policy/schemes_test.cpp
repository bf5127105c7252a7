#include "policy/schemes.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

constexpr int64_t kUnit = 1 << 16, kN = 64;

struct Outcome {
  int64_t layers, units;
};  // layer forwards that run again, peak in activations

Outcome ladder(const std::string& scheme, bool last_saved = true) {
  const Profile profile = Profile::from_trace(testing::chain(kN, kUnit, last_saved));
  const Plan p = scheme_plan(profile, scheme);
  int64_t ops = 0;
  for (const Group& g : p.groups) ops += static_cast<int64_t>(g.ops.size());
  EXPECT_EQ(ops % 2, 0);
  EXPECT_EQ(p.predicted_live_bytes % kUnit, 0);
  return {ops / 2, p.predicted_live_bytes / kUnit};
}

// The forward itself holds three: a layer's input, the Linear's output, the ReLU's. Kept ones come on top.
TEST(Ladder, NoneKeepsAllAndRunsNothingAgain) {
  EXPECT_EQ(ladder("none").layers, 0);
  EXPECT_EQ(ladder("none").units, kN + 1);  // N activations and the last Linear's output
}

TEST(Ladder, FullReplaysEveryLayerFromTheInput) {
  EXPECT_EQ(ladder("full").layers, kN * (kN + 1) / 2);         // a_N is asked for
  EXPECT_EQ(ladder("full", false).layers, kN * (kN - 1) / 2);  // it is not: the replay stops before the last layer
  EXPECT_EQ(ladder("full").units, 3);
}

TEST(Ladder, ChunksReplayEachChunkOnce) {
  for (int64_t c : {2, 4, 8, 16, 32}) {
    const Outcome o = ladder("chunks(" + std::to_string(c) + ")");
    EXPECT_EQ(o.layers, kN - c + 1) << c;                              // borders are kept, so C - 1 outputs are not made again
    EXPECT_EQ(o.units, std::max(c - 1 + kN / c + 1, c - 1 + 3)) << c;  // borders, the chunk, one Linear's output
  }
}

TEST(Ladder, ChunksThatHoldNothingInside) {
  for (int64_t c : {2, 4, 8, 16}) {
    const int64_t n = kN / c;
    const Outcome o = ladder("chunks(" + std::to_string(c) + ", hold_inside=False)");
    EXPECT_EQ(o.layers, c * n * (n - 1) / 2 + n) << c;  // N^2 / (2 C) - N / 2, and the last chunk's own output
    EXPECT_EQ(o.units, c - 1 + 3) << c;
  }
}

TEST(Ladder, SqrtIsEightChunksOfSixtyFour) {
  EXPECT_EQ(ladder("sqrt").units, ladder("chunks(8)").units);
  EXPECT_EQ(ladder("sqrt").layers, kN - 7);
  EXPECT_EQ(ladder("sqrt(hold_inside=False)").layers, 8 * 8 * 7 / 2 + 8);
}

TEST(Ladder, PerBlockReplaysEachTransformerBlockOnce) {
  const Profile profile = Profile::from_trace(testing::transformer(4, 4096));
  const Plan p = scheme_plan(profile, "per_block");
  EXPECT_LE(p.added_seconds, 4 * 18.4 + 1);
  EXPECT_LT(p.predicted_live_bytes, scheme_plan(profile, "none").predicted_live_bytes / 2);
}

std::string error_of(const std::string& name) {
  try {
    Scheme::parse(name);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "no error";
}

TEST(SchemeName, RoundTrips) {
  for (const char* n : {"none", "full", "chunks(8)", "chunks(8, hold_inside=False)", "sqrt", "sqrt(hold_inside=False)", "per_block", "auto", "random(7)"})
    EXPECT_EQ(Scheme::parse(n).name(), n);
}

TEST(SchemeName, ErrorsNameArgumentValueAndLimit) {
  EXPECT_EQ(error_of("half"), "scheme: \"half\" is unknown, expected none, full, chunks(C), sqrt, per_block, random(SEED) or auto");
  EXPECT_EQ(error_of(""), "scheme: \"\" is unknown, expected none, full, chunks(C), sqrt, per_block, random(SEED) or auto");
  EXPECT_EQ(error_of("chunks"), "scheme: \"chunks\" has chunk count \"\", expected a whole number in [1, 1000000000]");
  EXPECT_EQ(error_of("chunks(0)"), "scheme: \"chunks(0)\" has chunk count 0, must be in [1, 1000000000]");
  EXPECT_EQ(error_of("chunks(-3)"), "scheme: \"chunks(-3)\" has chunk count \"-3\", expected a whole number in [1, 1000000000]");
  EXPECT_EQ(error_of("chunks(8"), "scheme: \"chunks(8\" has no closing parenthesis");
  EXPECT_EQ(error_of("chunks(8, x)"), "scheme: \"chunks(8, x)\" has argument \"x\", expected hold_inside=True or hold_inside=False");
  EXPECT_EQ(error_of("random(x)"), "scheme: \"random(x)\" has seed \"x\", expected a whole number in [0, 1000000000]");
}

}  // namespace
}  // namespace reprise
