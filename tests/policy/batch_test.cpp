// A step at a batch size that was never run: against the same step made up at that size.
#include "policy/batch.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "policy/schemes.hpp"
#include "profiler/scale.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

PlannerOptions quick() {
  PlannerOptions o;
  o.search.prices = 1500;
  o.simulate = false;
  return o;
}

// `batch` samples of 4 KiB a Value; parameters (outside Values) and the temporaries of backward's nodes, 12 KiB each, do not grow.
Trace step_of(int64_t batch, int32_t layers = 8) {
  testing::Tracer t;
  const int32_t weight = t.outside(4096);
  std::vector<int32_t> a = {t.outside(batch * 4096)};
  for (int32_t i = 0; i < layers; i++) {
    const int32_t z = t.op("addmm", {a.back(), weight}, batch * 4096, 0.125 * static_cast<double>(batch), batch * 1024);
    const int32_t r = t.op("relu", {z}, batch * 4096, 0.0625);
    t.save(r);
    t.gone(z);
    if (i > 0) t.gone(a.back());
    a.push_back(r);
  }
  t.gone(a.back());
  t.forward_end();
  for (int32_t i = layers; i > 0; i--) t.node({a[size_t(i)]}, {a[size_t(i)]}, 12288);
  Trace trace = t.finish();
  trace.start_live_bytes = 100'000 + batch * 4096;
  return trace;
}

Profile profile_of(int64_t batch) { return Profile::from_trace(step_of(batch)); }

TEST(Scaled, IsTheStepAtThatSize) {
  for (int64_t batch : {1, 3, 5, 8, 64}) {
    const Profile made = scaled(profile_of(2), 2, profile_of(6), 6, batch), real = profile_of(batch);
    ASSERT_EQ(made.values().size(), real.values().size());
    for (size_t v = 0; v < real.values().size(); v++) EXPECT_EQ(made.values()[v].bytes, real.values()[v].bytes) << "batch " << batch << ", Value " << v;
    for (size_t o = 0; o < real.ops().size(); o++) {
      EXPECT_NEAR(made.ops()[o].forward_seconds, real.ops()[o].forward_seconds, 1e-12);
      EXPECT_EQ(made.ops()[o].rise_bytes, real.ops()[o].rise_bytes);
    }
    EXPECT_EQ(made.data().buffers, real.data().buffers);
    EXPECT_EQ(made.data().start_live_bytes, real.data().start_live_bytes);
    for (const char* scheme : {"none", "full", "chunks(3)"})
      EXPECT_EQ(scheme_plan(made, scheme).predicted_live_bytes, scheme_plan(real, scheme).predicted_live_bytes) << scheme << " at batch " << batch;
  }
}

TEST(Scaled, TheOrderOfTheTwoDoesNotMatter) {
  const Profile up = scaled(profile_of(2), 2, profile_of(6), 6, 9), down = scaled(profile_of(6), 6, profile_of(2), 2, 9);
  EXPECT_EQ(up.data().buffers, down.data().buffers);
  EXPECT_EQ(scheme_plan(up, "none").predicted_live_bytes, scheme_plan(down, "none").predicted_live_bytes);
}

TEST(Scaled, WhatShrinksWithTheBatchIsTakenAtItsLargerSize) {
  ProfileData smaller = profile_of(6).data();
  smaller.buffers.front() = 100;
  EXPECT_EQ(scaled(profile_of(2), 2, Profile(smaller), 6, 12).data().buffers.front(), profile_of(2).data().buffers.front());
}

TEST(Scaled, PackedFormsGrowToo) {
  const auto packed = [](int64_t batch) { return Profile::from_trace(testing::with_packing(step_of(batch), 3)); };
  const Profile made = scaled(packed(2), 2, packed(4), 4, 16);
  size_t forms = 0;
  for (size_t v = 0; v < made.values().size(); v++) {
    EXPECT_EQ(made.values()[v].packed.bytes, packed(16).values()[v].packed.bytes);
    forms += made.values()[v].packed.form != Packing::kNone;
  }
  EXPECT_GE(forms, 2U);
}

std::string refused(const std::function<void()>& what) {
  try {
    what();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(Scaled, NamesWhatDiffers) {
  EXPECT_EQ(refused([] { scaled(profile_of(2), 2, Profile::from_trace(step_of(4, 7)), 4, 8); }), "scaled: the two steps differ: 16 operators against 14");
  EXPECT_EQ(refused([] { scaled(profile_of(2), 2, profile_of(2), 2, 8); }), "scaled: both batch sizes are 2, two different ones are needed");
  EXPECT_EQ(refused([] { scaled(profile_of(2), 2, profile_of(4), 4, 0); }), "scaled: batch is 0, must be in [1, 1099511627776]");
  ProfileData other = profile_of(4).data();
  other.ops[3].name = "gelu";
  EXPECT_EQ(refused([&] { scaled(profile_of(2), 2, Profile(other), 4, 8); }), "scaled: the two steps differ: operator 3, relu against gelu");
}

// The largest size that fits, by asking every one: with recomputation several times plain's.
TEST(PredictBatch, MoreFitsWithRecomputation) {
  const MeasuredBatch first{2, profile_of(2)}, second{4, profile_of(4)};
  constexpr int64_t kBudget = 600'000;
  int64_t plain = 0, planned = 0;
  for (int64_t batch = 1; batch <= 64; batch++) {
    const BatchPrediction none = predict_batch(first, second, batch, kBudget, "none", quick()),
                          found = predict_batch(first, second, batch, kBudget, "auto", quick());
    EXPECT_EQ(none.start_bytes, 100'000 + batch * 4096);
    EXPECT_TRUE(!none.fits || found.added_seconds == 0) << batch;
    plain = none.fits ? batch : plain;
    planned = found.fits ? batch : planned;
    EXPECT_EQ(found.fits, found.needed_bytes <= kBudget) << batch;
    EXPECT_GE(found.fits, none.fits);
  }
  EXPECT_EQ(plain, 12);  // 500,000 bytes beside the parameters; a sample takes 4 KiB of input, 7 x 4 saved before the last layer, and its 2 x 4
  EXPECT_GE(planned, 2 * plain);
}

}  // namespace
}  // namespace reprise
