#include "profiler/profile.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "profiler/json_document.hpp"
#include "profiler/timeline.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

using testing::Tracer;

const ProfileValue& value_of(const Profile& p, int32_t trace_value) {
  for (const ProfileValue& v : p.values())
    if (v.trace_value == trace_value) return v;
  throw std::out_of_range("no such Value");
}

TEST(Profile, InPlaceChainIsOneValueWithTwoMakers) {
  Tracer t;
  const int32_t x = t.op("convolution", {t.outside(64)}, 640), r = t.in_place("relu_", x, {});
  t.save(r);
  const Profile p = Profile::from_trace(t.finish());
  ASSERT_EQ(p.values().size(), 1U);
  EXPECT_EQ(p.values()[0].trace_value, r);
  EXPECT_EQ(p.values()[0].makers, (std::vector<int32_t>{0, 1}));
}

TEST(Profile, ReaderOfAnOverwrittenVersionNeverRunsAgain) {
  Tracer t;
  const int32_t x = t.op("convolution", {t.outside(64)}, 640), y = t.op("tanh", {x}, 640);
  t.in_place("relu_", x, {});
  t.gone(y);
  const Profile p = Profile::from_trace(t.finish());
  EXPECT_FALSE(p.ops()[1].replayable);
  EXPECT_TRUE(value_of(p, y).must_keep);
  EXPECT_EQ(value_of(p, y).reason, "its operator cannot run again");
}

TEST(Profile, ReplaysOfTheTracedPassAreNotTheProgrammes) {
  Trace plain = testing::chain(3, 640), learning = plain;
  const auto unpack = std::find_if(learning.events.begin(), learning.events.end(), [](const TraceEvent& e) { return e.mark == Mark::kUnpack; });
  learning.events.insert(unpack + 1, {{Mark::kReplayBegin, unpack->a, 0},
                                      {Mark::kAllocate, 77, 5000},
                                      {Mark::kAllocate, 78, 640},
                                      {Mark::kFree, 77, 5000},
                                      {Mark::kReplayEnd, 0, 0},
                                      {Mark::kFree, 78, 640}});
  EXPECT_EQ(Profile::from_trace(plain), Profile::from_trace(learning));
}

TEST(Profile, OpaqueOutputsAndValuesStillHeldAreKept) {
  Trace t = testing::chain(3, 640);
  t.ops[1].opaque = true;
  EXPECT_TRUE(value_of(Profile::from_trace(t), t.ops[1].outputs[0]).must_keep);
  EXPECT_FALSE(value_of(Profile::from_trace(t), t.ops[3].outputs[0]).must_keep);
  std::erase_if(t.events, [&](const TraceEvent& e) { return e.mark == Mark::kGone && e.a == t.ops[3].outputs[0]; });
  EXPECT_EQ(value_of(Profile::from_trace(t), t.ops[3].outputs[0]).reason, "held by the program when backward needs it");
}

TEST(Profile, RefineTakesMedians) {
  Trace t = testing::chain(2, 640);
  t.ops[0].signature = 7;
  Profile p = Profile::from_trace(t);
  for (double s : {5.0, 3.0}) p = refine(p, {{s, 1, 1, 1}, {s / 2, 0, 0, 0}});
  EXPECT_EQ(p.ops()[0].forward_seconds, 3);   // of 1, 5, 3
  EXPECT_EQ(p.ops()[0].replay_seconds, 2.5);  // of 2.5, 1.5: the upper
  EXPECT_EQ(p.data().passes, 3);
  EXPECT_EQ(p.ops()[1].replay_seconds, 0);
  EXPECT_THROW(refine(p, {{1, 1, 1}, {0, 0, 0, 0}}), std::invalid_argument);
  EXPECT_THROW(refine(p, {{1, 1, 1, 1}, {}}), std::invalid_argument);
}

TEST(Profile, EqualOpsShareTheirMedians) {
  Trace t = testing::chain(3, 640);  // addmm, relu, addmm, relu, addmm, relu
  for (size_t o : {0U, 2U, 4U}) t.ops[o].forward_seconds = 1.0 + static_cast<double>(o);
  const Profile p = Profile::from_trace(t), more = refine(p, {{7, 1, 7, 1, 1, 1}, {0, 0, 4, 0, 0, 0}});
  for (size_t o : {0U, 2U, 4U}) {
    EXPECT_EQ(p.ops()[o].forward_seconds, 3);     // of 1, 3, 5
    EXPECT_EQ(more.ops()[o].forward_seconds, 5);  // of 1, 7, 3, 7, 5, 1: the upper
    EXPECT_EQ(more.ops()[o].replay_seconds, 4);   // one of them ran again
    EXPECT_EQ(more.ops()[o + 1].replay_seconds, 0);
  }
}

TEST(Profile, SettledIsTheSameStepOnly) {
  const Trace t = testing::chain(2, 640);
  Trace other = t;
  other.signature++;
  EXPECT_NO_THROW(settled(Profile::from_trace(t), t));
  EXPECT_THROW(settled(Profile::from_trace(t), other), std::invalid_argument);
}

TEST(Profile, PackedFormsBelongToWhatIsMadeAndNotKept) {
  Trace t = testing::chain(3, 640);
  const PackingFacts bits{Packing::kBits, 20, 0.5, 0};
  const int32_t first = t.ops[1].outputs[0], second = t.ops[3].outputs[0];
  t.values[size_t(first)].packed = t.values[size_t(second)].packed = bits;
  t.ops[1].opaque = true;
  const Profile p = Profile::from_trace(t);
  EXPECT_EQ(value_of(p, first).packed, PackingFacts{});
  EXPECT_EQ(value_of(p, second).packed, bits);
  EXPECT_EQ(value_of(without_packing(p, {second}), second).packed, PackingFacts{});
}

TEST(Profile, SettledKeepsWhatIsKnownOfPackedForms) {
  Trace t = testing::chain(3, 640), later = t;
  const int32_t a = t.ops[1].outputs[0], b = t.ops[3].outputs[0];
  t.values[size_t(a)].packed = t.values[size_t(b)].packed = {Packing::kBits, 20, 0.5, 0.25};
  later.values[size_t(b)].packed = {Packing::kBits, 20, 0.125, 0};  // packed by the Plan, and never asked for
  const Profile p = settled(Profile::from_trace(t), later);
  EXPECT_EQ(value_of(p, a).packed, (PackingFacts{Packing::kBits, 20, 0.5, 0.25}));
  EXPECT_EQ(value_of(p, b).packed, (PackingFacts{Packing::kBits, 20, 0.125, 0.25}));
}

TEST(Profile, RegionsAddUp) {
  Trace t = testing::chain(2, 640);
  t.regions = {"", "layers.1"};
  t.ops[2].region = t.ops[3].region = 1;
  const auto rows = Profile::from_trace(t).regions();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[1].name, "layers.1");
  EXPECT_EQ(rows[1].saved_bytes, 640);
  EXPECT_EQ(rows[1].forward_seconds, 2);
}

TEST(ProfileJson, RoundTrips) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    const Profile p = Profile::from_trace(testing::with_packing(testing::random_graph(seed, 30), seed));
    EXPECT_EQ(Profile::from_json(p.to_json()), p) << seed;
  }
}

TEST(ProfileJson, BadInputsAreNamed) {
  const std::string good = Profile::from_trace(testing::chain(2, 640)).to_json();
  const auto with = [&](const char* pointer, nlohmann::json value) -> std::string {
    nlohmann::json body = nlohmann::json::parse(good)["body"];
    body[nlohmann::json::json_pointer(pointer)] = std::move(value);
    try {
      Profile::from_json(write_document("Profile", Profile::kVersion, body));
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(with("/ops/1/rise_bytes", -1), "Profile JSON: body.ops[1].rise_bytes: -1 is below 0");
  EXPECT_EQ(with("/ops/0/region", 7), "Profile JSON: body.ops[0].region: 7 is above 0");
  EXPECT_EQ(with("/ops/0/forward_seconds", 1e300), "Profile JSON: body.ops[0].forward_seconds: 1e+300 is above 1000000000.0");
  EXPECT_EQ(with("/ops/0/replayable", 1), "Profile JSON: body.ops[0].replayable: 1 is not true or false");
  EXPECT_EQ(with("/values/0/makers/0", 9), "Profile JSON: body.values[0].makers[0]: 9 is above 3");
  EXPECT_EQ(with("/values/0/packed/form", "zip"), "Profile JSON: body.values[0].packed.form: \"zip\" is none of none, bits, one_byte, two_bytes, four_bytes");
  EXPECT_EQ(with("/values/0/packed/bytes", 20), "Profile F6: Value 0 has no packed form and something to know of it");
  EXPECT_EQ(with("/values/0/packed", {{"form", "bits"}, {"bytes", 640}, {"pack_seconds", 0}, {"unpack_seconds", 0}}),
            "Profile F6: Value 0 is packed to 640 of 640 bytes");
  EXPECT_EQ(with("/values/0/packed", {{"form", "bits"}, {"bytes", 20}, {"pack_seconds", -1}, {"unpack_seconds", 0}}),
            "Profile JSON: body.values[0].packed.pack_seconds: -1 is below 0.0");
  EXPECT_EQ(with("/threads", 0), "Profile JSON: body.threads: 0 is below 1");
  EXPECT_EQ(with("/steps", {1}), "Profile JSON: body.steps: 1 entries, must be even");
  EXPECT_EQ(with("/steps/0", 99), "Profile JSON: body.steps[0]: 99 is above 8");
  EXPECT_EQ(with("/ops/0/replayable", false), "Profile F2: Value 0 cannot be made again and is not kept");
  EXPECT_EQ(with("/values/1/trace_value", 2), "Profile F5: Value 1 shares Trace number 2");
  EXPECT_EQ(with("/ops/0/reads", {3}), "Profile F3: op 0 reads Value 3 before it is made");
  EXPECT_EQ(with("/steps/1", 1), "Profile F4: step 2 ends op 0, which is not open");  // op 0 begins, makes, ends
}

}  // namespace
}  // namespace reprise
