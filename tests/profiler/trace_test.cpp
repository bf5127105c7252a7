#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

template <class Change>
std::string broken(Change&& change) {
  Trace t = testing::chain(2, 64);
  change(t);
  try {
    t.validate();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "no error";
}

TEST(Trace, ViolationsAreNumbered) {
  EXPECT_EQ(broken([](Trace&) {}), "no error");
  EXPECT_EQ(broken([](Trace& t) { t.ops[0].inputs[0] = 99; }), "Trace T1: op 0 (addmm) names Value 99, there are 6");
  EXPECT_EQ(broken([](Trace& t) { t.ops[1].region = 3; }), "Trace T1: op 1 (relu) names Region 3, there are 1");
  EXPECT_EQ(broken([](Trace& t) { t.values[0].producer = 1; }), "Trace T2: Value 0 came from outside and has producer op 1");
  EXPECT_EQ(broken([](Trace& t) { t.values[2].producer = 1; }), "Trace T3: op 0 (addmm) makes Value 2, whose producer is op 1");
  EXPECT_EQ(broken([](Trace& t) { t.events.push_back({Mark::kUnpack, -1, 0}); }).substr(0, 9), "Trace T1:");
  EXPECT_EQ(broken([](Trace& t) { t.events.push_back({Mark::kBorn, 2, 1002}); }).substr(0, 9), "Trace T4:");
}

}  // namespace
}  // namespace reprise
