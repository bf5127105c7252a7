// Offsets for known lifetimes: disjoint, near the bound, the same every time; and from the log of a step to a PlannedStep.
#include "policy/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"
#include "policy/placement_search.hpp"
#include "policy/schemes.hpp"
#include "policy/step_placement.hpp"
#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

std::vector<Lifetime> random_lifetimes(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::vector<Lifetime> out;
  for (size_t i = 0; i < count; i++) {
    const auto birth = static_cast<int64_t>(random() % 1000);
    out.push_back({static_cast<int64_t>(random() % (int64_t{1} << (random() % 20))), birth, birth + static_cast<int64_t>(random() % 200)});
  }
  return out;
}

// A full rectangle of `capacity` bytes and 64 moments, cut at random: a placement without a gap exists.
std::vector<Lifetime> cut_rectangle(uint64_t seed, int64_t capacity, int cuts) {
  struct Box {
    int64_t bytes, birth, death;
  };
  std::mt19937_64 random(seed);
  std::vector<Box> boxes = {{capacity, 0, 64}};
  for (int i = 0; i < cuts; i++) {
    Box& box = boxes[random() % boxes.size()];
    Box rest = box;
    if (random() % 2 == 0 && box.bytes > 64) {
      box.bytes = 64 * (1 + static_cast<int64_t>(random() % static_cast<uint64_t>(box.bytes / 64 - 1)));
      rest.bytes -= box.bytes;
    } else if (box.death - box.birth > 1) {
      box.death = box.birth + 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(rest.death - rest.birth - 1));
      rest.birth = box.death;
    } else {
      continue;
    }
    boxes.push_back(rest);
  }
  std::vector<Lifetime> out;
  for (const Box& b : boxes) out.push_back({b.bytes, b.birth, b.death});
  std::shuffle(out.begin(), out.end(), random);
  return out;
}

TEST(Placement, NeverOverlapsOnRandomLifetimes) {
  for (int i = 0; i < 40; i++) {
    const uint64_t seed = std::random_device{}();
    const auto lifetimes = random_lifetimes(seed, 200);
    const Placement placement = place(lifetimes, {.looks = 200'000});
    EXPECT_EQ(check_placement(lifetimes, placement, 64), "") << "seed " << seed;
    EXPECT_EQ(placement.peak_bytes, peak_bytes(lifetimes, 64)) << "seed " << seed;
    EXPECT_LE(placement.peak_bytes, placement.total_bytes) << "seed " << seed;
  }
}

TEST(Placement, IsTheSameEveryTime) {
  const auto lifetimes = random_lifetimes(7, 300);
  EXPECT_EQ(place(lifetimes).offsets, place(lifetimes).offsets);
}

TEST(Placement, CheckFindsWhatIsWrong) {
  const std::vector<Lifetime> two = {{128, 0, 10}, {64, 5, 15}};
  EXPECT_EQ(check_placement(two, {{0, 128}, 192, 192}, 64), "");
  EXPECT_EQ(check_placement(two, {{0, 64}, 128, 192}, 64), "L1: allocation 1 overlaps allocation 0");
  EXPECT_EQ(check_placement(two, {{64, 0}, 192, 192}, 64), "");
  EXPECT_EQ(check_placement(two, {{0, 100}, 192, 192}, 64), "L2: allocation 1 lies at 100");
  EXPECT_EQ(check_placement(two, {{0, 128}, 128, 192}, 64), "L2: allocation 1 lies at 128");
}

TEST(Placement, BytesMayBeUsedAgainTheMomentTheyAreFree) {
  const Placement placement = place({{640, 0, 5}, {640, 5, 9}, {64, 0, 9}});
  EXPECT_EQ(placement.total_bytes, 704);
}

TEST(Placement, RefusesWhatMakesNoSense) {
  EXPECT_THROW(place({{-1, 0, 1}}), std::invalid_argument);
  EXPECT_THROW(place({{64, 2, 1}}), std::invalid_argument);
  EXPECT_THROW(place({{64, 0, 1}}, {.alignment = 48}), std::invalid_argument);
  EXPECT_EQ(place({}).total_bytes, 0);
  EXPECT_EQ(place({{0, 0, 5}, {64, 3, 3}}).total_bytes, 0);
}

// What the greedy passes miss the search finds: rectangles that can be filled without a gap.
TEST(Placement, SearchFillsRectanglesThatGreedyPassesDoNot) {
  int gaps = 0;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    const auto lifetimes = cut_rectangle(seed, 64 * 64, 40);
    ASSERT_EQ(peak_bytes(lifetimes), 64 * 64);
    gaps += place(lifetimes, {.looks = 0}).total_bytes > 64 * 64;
    const Placement placement = place(lifetimes, {.looks = 400'000'000});
    EXPECT_EQ(placement.total_bytes, 64 * 64) << "seed " << seed;
    EXPECT_EQ(check_placement(lifetimes, placement, 64), "") << "seed " << seed;
  }
  EXPECT_GT(gaps, 0);
}

// Three layers' activations of few sizes: only where equal sizes go in order of their births do they reach the peak.
TEST(Placement, EqualSizesInOrderOfTheirBirthsReachThePeak) {
  const std::vector<Lifetime> lifetimes = {{128, 0, 8},   {192, 1, 59}, {128, 2, 4},  {64, 3, 57},   {64, 10, 48},  {128, 11, 22},
                                           {192, 12, 24}, {64, 13, 47}, {64, 20, 38}, {128, 21, 22}, {192, 22, 38}, {64, 23, 35}};
  const Placement placement = place(lifetimes, {.alignment = 64, .looks = 0});
  EXPECT_EQ(placement.total_bytes, peak_bytes(lifetimes));
  EXPECT_EQ(check_placement(lifetimes, placement, 64), "");
}

TEST(Placement, SearchSaysNothingWhereNothingFits) {
  EXPECT_FALSE(CapacitySearch({{64, 0, 2}, {64, 1, 3}}, 127).run(1'000'000));
  EXPECT_TRUE(CapacitySearch({{64, 0, 2}, {64, 1, 3}}, 128).run(1'000'000));
}

const void* address(uintptr_t number) { return reinterpret_cast<const void*>(number); }

TEST(StepPlacement, LivesAreCountedInAllocations) {
  AllocationLog log(HeapShape{});
  log.allocate(address(1), 5000);
  log.allocate(address(2), 100);  // small: served from slabs
  log.allocate(address(3), 9000);
  log.free(address(1), 5000);
  log.free(address(2), 100);
  log.allocate(address(1), 5000);
  const auto step = log.placed(0);
  ASSERT_EQ(step->pieces().size(), 3u);
  EXPECT_EQ(step->pieces()[0].bytes, 5056u);
  EXPECT_EQ(step->pieces()[0].dies_before, 2u);
  EXPECT_EQ(step->pieces()[1].dies_before, PlannedPiece::kOutlives);
  EXPECT_EQ(step->region_bytes(), 5056u + 9024u);
  EXPECT_EQ(step->pieces()[2].offset, step->pieces()[0].offset);
  EXPECT_EQ(AllocationLog(HeapShape{}).placed(0), nullptr);
}

TEST(StepPlacement, AnAddressThatComesBackWasFreed) {
  AllocationLog log(HeapShape{});
  log.allocate(address(1), 5000);
  log.allocate(address(1), 6000);
  EXPECT_EQ(log.placed(0)->pieces()[0].dies_before, 1u);
}

TEST(StepPlacement, ASurvivorThatReplacesTheOneBeforeLiesElsewhere) {
  AllocationLog log(HeapShape{});
  log.allocate(address(1), 5000);
  log.free(address(9), 7000);  // was there before the step
  log.free(address(1), 5000);
  log.allocate(address(2), 7000);
  log.allocate(address(3), 7000);
  const auto step = log.placed(0);
  EXPECT_TRUE(step->pieces()[1].elsewhere);
  EXPECT_FALSE(step->pieces()[2].elsewhere);
}

// Steps of random lives through the real core: from the second on each is served as placed, and reserves what the placement said.
TEST(StepPlacement, AStepThatRepeatsReservesWhatWasPlaced) {
  for (uint64_t seed = 1; seed <= 5; seed++) {
    SimulatedDevice device(std::size_t{1} << 30, 4096);
    CachingAllocator core(device, {});
    std::vector<std::pair<int64_t, size_t>> events;  // (time, item), births after deaths
    std::vector<Lifetime> lives = random_lifetimes(seed, 150);
    std::erase_if(lives, [](const Lifetime& l) { return l.bytes <= 1024 || l.birth == l.death; });
    for (size_t i = 0; i < lives.size(); i++) events.emplace_back(2 * lives[i].birth + 1, i), events.emplace_back(2 * lives[i].death, i);
    std::sort(events.begin(), events.end());
    std::shared_ptr<const PlannedStep> step;
    for (int round = 0; round < 3; round++) {
      AllocationLog log(HeapShape{});
      if (step) {
        core.trim();
        ASSERT_TRUE(core.begin_planned(step));
      }
      std::vector<void*> pointers(lives.size());
      for (const auto& [time, i] : events) {
        if (time % 2 == 1) {
          pointers[i] = core.allocate(static_cast<std::size_t>(lives[i].bytes));
          log.allocate(pointers[i], lives[i].bytes);
        } else {
          core.deallocate(pointers[i]);
          log.free(pointers[i], lives[i].bytes);
        }
      }
      if (step) {
        EXPECT_EQ(core.statistics().reserved_bytes, (step->region_bytes() + 4095) / 4096 * 4096) << "seed " << seed;
      }
      core.end_planned();
      step = log.placed(1'000'000);
    }
    EXPECT_EQ(core.statistics().planned_misses, 0u) << "seed " << seed;
    EXPECT_EQ(core.statistics().planned_hits, 2 * lives.size()) << "seed " << seed;
  }
}

TEST(StepPlacement, NobodyWaitsForThePlacesOfAPlanThatRunsEverythingAHundredTimes) {
  const Profile profile = Profile::from_trace(testing::chain(200, 1 << 20));
  const Plan full = scheme_plan(profile, "full");
  size_t again = 0;
  for (const Group& g : full.groups) again += g.ops.size();
  ASSERT_GT(again, kMostAgain + 8 * profile.ops().size());
  EXPECT_EQ(placed_step(full, profile), nullptr);
  EXPECT_NE(placed_step(scheme_plan(profile, "sqrt"), profile), nullptr);
}

}  // namespace
}  // namespace reprise
