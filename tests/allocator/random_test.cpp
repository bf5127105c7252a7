#include <gtest/gtest.h>

#include <random>

#include "tests/allocator/program.hpp"

namespace reprise::testing {
namespace {

void expect_right(const Setting& setting, Program (*make)(std::uint64_t, std::size_t) = random_program) {
  const std::uint64_t seed = std::random_device{}();
  const Program program = make(seed, 20'000);
  Statistics last;
  const std::string wrong = run(program, setting, &last);
  EXPECT_EQ(wrong, "") << "seed " << seed << "\n" << as_source(minimised(program, setting));
  EXPECT_GT(last.planned_hits, 0u) << "seed " << seed;
  EXPECT_GT(last.planned_misses, 0u) << "seed " << seed;
}

TEST(RandomProgram, HostWithThreadCaches) { expect_right({}); }
TEST(RandomProgram, HostWithoutCaches) { expect_right({.options = {.caches = false}}); }
TEST(RandomProgram, HostUnderACap) { expect_right({.options = {.cap_bytes = 4 << 20}}); }
TEST(RandomProgram, HostThatRepeats) { expect_right({}, repeating_program); }
TEST(RandomProgram, HostThatRepeatsUnderACap) { expect_right({.options = {.cap_bytes = 1 << 20}}, repeating_program); }
TEST(RandomProgram, SimulatedGpu) { expect_right({.options = {.rounding_bytes = 512, .small_limit_bytes = 0, .caches = false}, .host = false}); }
TEST(RandomProgram, SimulatedDeviceThatIsFull) { expect_right({.options = {}, .host = false, .capacity_bytes = 3 << 20}); }

TEST(RandomProgram, PrintsItselfAsSource) {
  EXPECT_EQ(as_source({{.kind = Kind::kCap, .slot = 3, .bytes = 70}}), "const Program program = {\n    {.kind = Kind::kCap, .slot = 3, .bytes = 70},\n};\n");
}

}  // namespace
}  // namespace reprise::testing
