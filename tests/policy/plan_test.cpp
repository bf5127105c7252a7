#include "policy/plan.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "policy/planner.hpp"
#include "policy/schemes.hpp"
#include "profiler/json_document.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

Plan sample() {
  Plan p;
  p.scheme = "auto";
  p.value_count = 4;
  p.op_count = 4;
  p.keep = {0, 2};
  p.pack = {{1, Packing::kBits}};
  p.groups = {{3, {3}, {3}, {0}, {1}}, {1, {}, {1}, {}, {1}}};
  return p;
}

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "no error";
}

// The error when one field of the sample's body is replaced; the checksum is made right again.
std::string with(const char* field, nlohmann::json value) {
  nlohmann::json body = nlohmann::json::parse(sample().to_json())["body"];
  if (value.is_discarded()) body.erase(field);
  else body[field] = std::move(value);
  return error_of([&] { Plan::from_json(write_document("Plan", Plan::kVersion, body)); });
}

TEST(CheckPlan, NamesAPackedFormThatTheProfileLacks) {
  const Profile profile = Profile::from_trace(testing::with_packing(testing::transformer(3, 4096), 3));
  Plan p = scheme_plan(profile, "random(5)");
  ASSERT_FALSE(p.pack.empty());
  EXPECT_EQ(error_of([&] { check_plan(p, profile); }), "no error");
  p.pack[0].form = Packing::kOneByte;
  EXPECT_EQ(error_of([&] { check_plan(p, profile); }), "Plan P6: Value " + std::to_string(p.pack[0].value) + " has no packed form \"one_byte\"");
}

TEST(PlanJson, RoundTrips) {
  const Profile profile = Profile::from_trace(testing::with_packing(testing::transformer(3, 4096), 3));
  for (const char* s : {"none", "full", "chunks(2)", "random(5)"}) {
    const Plan p = scheme_plan(profile, s);
    EXPECT_EQ(Plan::from_json(p.to_json()).to_json(), p.to_json());
  }
}

TEST(PlanJson, BadFieldsAreNamed) {
  EXPECT_EQ(with("scheme", 5), "Plan JSON: body.scheme: 5 is not a text");
  EXPECT_EQ(with("scheme", std::string(201, 'x')), "Plan JSON: body.scheme: 201 bytes of text, the limit is 200");
  EXPECT_EQ(with("value_count", -1), "Plan JSON: body.value_count: -1 is below 0");
  EXPECT_EQ(with("op_count", 4294967296), "Plan JSON: body.op_count: 4294967296 is above 2147483647");
  EXPECT_EQ(with("keep", 1), "Plan JSON: body.keep: 1 is not a list");
  EXPECT_EQ(with("keep", {0, 4}), "Plan JSON: body.keep[1]: 4 is above 3");
  EXPECT_EQ(with("keep", {0, 1.5}), "Plan JSON: body.keep[1]: 1.5 is not an integer");
  EXPECT_EQ(with("keep", {2, 0}), "Plan P5: keep is not sorted at entry 1");
  EXPECT_EQ(with("keep", {2}), "Plan P5: Group 0: source 0 is neither kept nor retained by an earlier Group");
  EXPECT_EQ(with("added_seconds", -0.5), "Plan JSON: body.added_seconds: -0.5 is below 0.0");
  EXPECT_EQ(with("added_seconds", "x"), "Plan JSON: body.added_seconds: \"x\" is not a number");
  EXPECT_EQ(with("limit_bytes", -1), "Plan JSON: body.limit_bytes: -1 is below 0");
  EXPECT_EQ(with("limit_bytes", nlohmann::json(nlohmann::json::value_t::discarded)), "Plan JSON: body.limit_bytes: is missing");
  EXPECT_EQ(with("pack", {{{"value", 1}, {"form", "zip"}}}), "Plan JSON: body.pack[0].form: \"zip\" is none of none, bits, one_byte, two_bytes, four_bytes");
  EXPECT_EQ(with("pack", {{{"value", 4}, {"form", "bits"}}}), "Plan JSON: body.pack[0].value: 4 is above 3");
  EXPECT_EQ(with("pack", {{{"value", 1}}}), "Plan JSON: body.pack[0].form: is missing");
  EXPECT_EQ(with("pack", nlohmann::json::array()), "Plan P6: Group 0: unpacked Value 1 is not packed");
  EXPECT_EQ(with("surprise", 1), "Plan JSON: body: \"surprise\" is not a field");
  EXPECT_EQ(with("groups", nlohmann::json::array({5})), "Plan JSON: body.groups[0]: 5 is not an object");
  EXPECT_EQ(with("trace_signature", -1), "Plan JSON: body.trace_signature: -1 is not an unsigned integer");
}

TEST(PlanJson, BadEnvelopesAreNamed) {
  const std::string good = sample().to_json();
  const auto read = [](const std::string& text) { return error_of([&] { Plan::from_json(text); }); };
  const auto replaced = [&](const std::string& from, const std::string& to) { return std::string(good).replace(good.find(from), from.size(), to); };
  EXPECT_EQ(read(good), "no error");
  EXPECT_EQ(read(""), "Plan JSON: document: not valid JSON, or cut short, at 0 bytes");
  EXPECT_EQ(read(good.substr(0, 100)), "Plan JSON: document: not valid JSON, or cut short, at 100 bytes");
  EXPECT_EQ(read(replaced("\"version\":2", "\"version\":1")), "Plan JSON: version: 1, this build reads 2");
  EXPECT_EQ(read(replaced("\"Plan\"", "\"Profile\"")), "Plan JSON: reprise: \"Profile\", expected \"Plan\"");
  EXPECT_EQ(read(replaced("\"keep\":[0,2]", "\"keep\":[0,3]")).substr(0, 20), "Plan JSON: checksum:");
  EXPECT_EQ(read("[1]"), "Plan JSON: document: [1] is not an object");
  EXPECT_EQ(read(std::string(20, '[') + std::string(20, ']')), "Plan JSON: document: nested deeper than 12");
}

TEST(PlanInvariants, ViolationsAreNumbered) {
  const auto broken = [](auto&& change) {
    Plan p = sample();
    change(p);
    return error_of([&] { p.validate(); }).substr(0, 8);
  };
  EXPECT_EQ(broken([](Plan&) {}), "no error");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].ops = {1, 9}; }), "Plan P1:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].unpack = {9}; }), "Plan P1:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].ops = {3, 1}; }), "Plan P2:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].retain = {2}; }), "Plan P4:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].ops.clear(); }), "Plan P4:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].sources = {1}; }), "Plan P5:");
  EXPECT_EQ(broken([](Plan& p) { p.pack.push_back({1, Packing::kBits}); }), "Plan P6:");
  EXPECT_EQ(broken([](Plan& p) { p.pack[0] = {0, Packing::kBits}; }), "Plan P6:");
  EXPECT_EQ(broken([](Plan& p) { p.pack[0].form = Packing::kNone; }), "Plan P6:");
  EXPECT_EQ(broken([](Plan& p) { p.groups[0].unpack = {0}; }), "Plan P6:");
}

}  // namespace
}  // namespace reprise
