// A step that repeats, served from a planned region: exactly, with every kind of mismatch, and from several threads.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>

#include "allocator/caching_allocator.hpp"
#include "allocator/host/host_device.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

constexpr std::size_t kKilo = 1024;
constexpr std::size_t kMega = kKilo * kKilo;

std::shared_ptr<const PlannedStep> planned(std::vector<PlannedPiece> pieces) { return std::make_shared<const PlannedStep>(std::move(pieces)); }

// a and b side by side, then c in the place of a, then d, which outlives the step, in the place of b.
std::shared_ptr<const PlannedStep> four_pieces() {
  return planned({{.bytes = 64 * kKilo, .offset = 0, .dies_before = 2},
                  {.bytes = 32 * kKilo, .offset = 64 * kKilo, .dies_before = 3},
                  {.bytes = 48 * kKilo, .offset = 0, .dies_before = 4},
                  {.bytes = 16 * kKilo, .offset = 64 * kKilo}});
}

struct Simulated {
  explicit Simulated(std::size_t cap = kNoCap) : allocator(device, {.cap_bytes = cap}) {}
  ~Simulated() { EXPECT_EQ(allocator.check_invariants(), ""); }
  std::byte* take(std::size_t bytes) {
    auto* const pointer = static_cast<std::byte*>(allocator.allocate(bytes));
    EXPECT_NE(pointer, nullptr);
    EXPECT_EQ(allocator.check_invariants(), "");
    return pointer;
  }
  void give(void* pointer) {
    allocator.deallocate(pointer);
    EXPECT_EQ(allocator.check_invariants(), "");
  }
  std::uint64_t hits() const { return allocator.statistics().planned_hits; }
  std::uint64_t misses() const { return allocator.statistics().planned_misses; }

  SimulatedDevice device{256 * kMega, 4096};
  CachingAllocator allocator;
};

// The four, as planned. Returns d, which is to be freed.
std::array<std::byte*, 4> follow(Simulated& one) {
  std::byte* const a = one.take(64 * kKilo);
  std::byte* const b = one.take(32 * kKilo - 7);  // requests are rounded before they are compared
  one.give(a);
  std::byte* const c = one.take(48 * kKilo);
  one.give(b);
  std::byte* const d = one.take(16 * kKilo);
  one.give(c);
  return {a, b, c, d};
}

TEST(Planned, EveryPieceIsAtItsOffsetAndNoDeviceCallIsMade) {
  Simulated one;
  std::byte* base = nullptr;
  std::uint64_t calls = 0;
  for (int step = 0; step < 3; ++step) {
    ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
    const auto [a, b, c, d] = follow(one);
    one.allocator.end_planned();
    if (step == 0) base = a, calls = one.allocator.statistics().device_calls;
    EXPECT_EQ(a, base);
    EXPECT_EQ(b, base + 64 * kKilo);
    EXPECT_EQ(c, base);
    EXPECT_EQ(d, base + 64 * kKilo);
    EXPECT_EQ(one.allocator.check_invariants(), "");
    one.give(d);
  }
  EXPECT_EQ(one.hits(), 12u);
  EXPECT_EQ(one.misses(), 0u);
  EXPECT_EQ(one.allocator.statistics().device_calls, calls);
  EXPECT_EQ(one.allocator.statistics().reserved_bytes, 96 * kKilo);  // the region, and nothing beside it
}

TEST(Planned, AnotherSizeIsServedElsewhereAndTheRestAsPlanned) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  std::byte* const other = one.take(40 * kKilo);  // instead of b
  EXPECT_TRUE(other >= a + 96 * kKilo || other + 40 * kKilo <= a);
  one.give(a);
  EXPECT_EQ(one.take(48 * kKilo), a);
  EXPECT_EQ(one.hits(), 2u);
  EXPECT_EQ(one.misses(), 1u);
}

TEST(Planned, AnotherOrderIsServedAndHealsWithTheNextStep) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const b = one.take(32 * kKilo);
  std::byte* const a = one.take(64 * kKilo);  // b was served: a was passed over
  EXPECT_EQ(one.hits(), 1u);
  EXPECT_EQ(one.misses(), 1u);
  one.give(a);
  one.give(b);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  follow(one);
  EXPECT_EQ(one.hits(), 5u);
  EXPECT_EQ(one.misses(), 1u);
}

TEST(Planned, WhatIsStillThereKeepsItsBytes) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  std::byte* const b = one.take(32 * kKilo);
  std::byte* const c = one.take(48 * kKilo);  // a is not freed as it should be
  EXPECT_TRUE(c >= a + 96 * kKilo || c + 48 * kKilo <= a);
  EXPECT_EQ(one.misses(), 1u);
  one.give(b);
  EXPECT_EQ(one.take(16 * kKilo), b);  // what a is not in the way of is served
  one.allocator.end_planned();
  one.give(a);  // an ordinary piece now
  one.give(c);
}

TEST(Planned, APieceThatIsPassedOverLeavesTheOthersAlone) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  one.give(a);
  EXPECT_EQ(one.take(48 * kKilo), a);  // b never came
  EXPECT_EQ(one.misses(), 0u);
}

// Gradients of the step before are freed in the middle of this one; others ask before the next ones take their bytes.
TEST(Planned, WhatLiesElsewhereGetsTheBytesOfTheOneBefore) {
  const auto step = planned({{.bytes = 64 * kKilo, .offset = 0, .dies_before = 3},
                             {.bytes = 32 * kKilo, .elsewhere = true},
                             {.bytes = 16 * kKilo, .elsewhere = true},
                             {.bytes = 32 * kKilo, .offset = 0, .dies_before = 4}});
  EXPECT_EQ(step->region_bytes(), 64 * kKilo);
  Simulated one;
  std::byte *large = nullptr, *small = nullptr;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(one.allocator.begin_planned(step));
    std::byte* const a = one.take(64 * kKilo);
    std::byte* other = nullptr;
    if (large != nullptr) {
      one.give(large);
      one.give(small);
      other = one.take(20 * kKilo);  // fits where they were
    }
    std::byte *const next_large = one.take(32 * kKilo), *const next_small = one.take(16 * kKilo);
    EXPECT_TRUE(large == nullptr || (large == next_large && small == next_small));
    EXPECT_TRUE(next_large >= a + 64 * kKilo || next_large + 32 * kKilo <= a);
    large = next_large;
    small = next_small;
    one.give(a);
    EXPECT_EQ(one.take(32 * kKilo), a);  // of the same size, and next in its turn
    one.give(a);
    one.allocator.end_planned();
    one.give(other);
  }
  EXPECT_EQ(one.misses(), 3u);  // the others
  EXPECT_EQ(one.hits(), 16u);
  EXPECT_LE(one.allocator.statistics().peak_reserved_bytes, (64 + 48 + 20) * kKilo);
}

TEST(Planned, NoMoreIsHeldThanIsAwaited) {
  Simulated one;
  std::byte *const first = one.take(32 * kKilo), *const second = one.take(32 * kKilo), *const third = one.take(32 * kKilo);
  const PlannedPiece elsewhere = {.bytes = 32 * kKilo, .elsewhere = true};
  ASSERT_TRUE(one.allocator.begin_planned(planned({{.bytes = 64 * kKilo, .dies_before = 3}, elsewhere, elsewhere})));
  std::byte* const a = one.take(64 * kKilo);
  for (std::byte* piece : {first, second, third}) one.give(piece);
  EXPECT_EQ(one.take(20 * kKilo), third);  // the other two are held
  std::byte *const b = one.take(32 * kKilo), *const c = one.take(32 * kKilo);
  EXPECT_TRUE((b == first && c == second) || (b == second && c == first));
  one.give(b);
  EXPECT_EQ(one.take(28 * kKilo), b);  // nobody awaits its size any more
  one.give(a);
}

TEST(Planned, WhatIsHeldForLaterIsThereForOthersBeforeMemoryIsOut) {
  const auto step = planned({{.bytes = 64 * kKilo, .offset = 0, .dies_before = 2}, {.bytes = 32 * kKilo, .elsewhere = true}});
  Simulated one(100 * kKilo);
  std::byte* const gradient = one.take(32 * kKilo);
  ASSERT_TRUE(one.allocator.begin_planned(step));
  one.take(64 * kKilo);
  one.give(gradient);
  one.take(36 * kKilo);  // the region is given up, and what is held with it
  EXPECT_EQ(one.allocator.statistics().planned_steps_given_up, 1u);
}

// A step that was begun and never ended keeps its region from the others only until they asked for as much again.
TEST(Planned, AForgottenStepIsOverAfterAWhile) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  one.give(follow(one)[3]);
  for (int i = 0; i < 5; ++i) one.give(one.take(90 * kKilo));
  EXPECT_LE(one.allocator.statistics().reserved_bytes, (96 + 92) * kKilo);
  const auto reserved = one.allocator.statistics().reserved_bytes;
  std::byte* const a = one.take(90 * kKilo);
  std::byte* const b = one.take(90 * kKilo);
  EXPECT_EQ(one.allocator.statistics().reserved_bytes, reserved);
  one.give(a);
  one.give(b);
}

// A batch is made before the one it replaces is freed: two places are found for it beside the region, and then nothing is committed or missed any more.
TEST(Planned, WhatIsReplacedBetweenStepsLiesBesideTheParkedRegion) {
  Simulated one;
  const auto step = planned({{.bytes = kMega, .dies_before = 1}, {.bytes = kMega, .offset = 0, .dies_before = 2}});
  std::byte *batch = nullptr, *place = nullptr;
  std::uint64_t calls = 0;
  for (int i = 0; i < 12; ++i) {
    std::byte* const fresh = one.take(12 * kKilo);
    if (batch != nullptr) one.give(batch);
    batch = fresh;
    ASSERT_TRUE(one.allocator.begin_planned(step));
    for (int n = 0; n < 2; ++n) {
      std::byte* const piece = one.take(kMega);
      EXPECT_TRUE(place == nullptr || piece == place);
      place = piece;
      one.give(piece);
    }
    EXPECT_TRUE(one.allocator.end_planned(step.get()));
    if (i == 2) calls = one.allocator.statistics().device_calls;
  }
  EXPECT_EQ(one.allocator.statistics().device_calls, calls);
  EXPECT_EQ(one.misses(), 0u);
  EXPECT_LE(one.allocator.statistics().peak_reserved_bytes, kMega + 2 * 12 * kKilo);
}

TEST(Planned, WhatIsLargeBetweenStepsGetsTheRegionsBytes) {
  Simulated one;
  const auto step = planned({{.bytes = kMega, .dies_before = 1}});
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(one.allocator.begin_planned(step));
    one.give(one.take(kMega));
    EXPECT_TRUE(one.allocator.end_planned(step.get()));
    EXPECT_FALSE(one.allocator.end_planned(step.get()));
    std::byte *const a = one.take(500 * kKilo), *const b = one.take(500 * kKilo);  // an optimizer's
    one.give(a);
    one.give(b);
  }
  EXPECT_EQ(one.allocator.statistics().peak_reserved_bytes, kMega);
  EXPECT_EQ(one.misses(), 0u);
  one.allocator.end_planned();
  one.allocator.trim();
  EXPECT_EQ(one.allocator.statistics().reserved_bytes, 0u);
}

// Steps of one piece, as on CUDA (nothing is cached by size); between two of them whatever is asked for: up to 16 KiB lie in the lobby.
struct BetweenSteps {
  BetweenSteps() : allocator(device, {.small_limit_bytes = 0, .caches = false}) {}
  ~BetweenSteps() { EXPECT_EQ(allocator.check_invariants(), ""); }
  void run_step() {
    ASSERT_TRUE(allocator.begin_planned(step));
    at_begin = allocator.statistics().reserved_bytes;
    allocator.deallocate(allocator.allocate(kMega));
    EXPECT_TRUE(allocator.end_planned(step.get()));
  }
  void run_optimizer() {  // the first of its temporaries finds room in the lobby, once
    void *const a = allocator.allocate(12 * kKilo), *const b = allocator.allocate(500 * kKilo);
    allocator.deallocate(a);
    allocator.deallocate(b);
  }
  SimulatedDevice device{256 * kMega, 4096};
  CachingAllocator allocator;
  std::shared_ptr<const PlannedStep> step = planned({{.bytes = kMega, .dies_before = 1}});
  std::size_t at_begin = 0;
};

TEST(Planned, WhatOverflowedTheLobbyIsGivenBackWithTheNextStep) {
  BetweenSteps one;
  std::uint64_t calls = 0;
  for (int i = 0; i < 6; ++i) {
    one.run_step();
    EXPECT_EQ(one.at_begin, kMega);
    one.run_optimizer();
    if (i == 2) calls = one.allocator.statistics().device_calls;
  }
  EXPECT_EQ(one.allocator.statistics().device_calls, calls);
  EXPECT_EQ(one.allocator.statistics().planned_misses, 0u);
}

TEST(Planned, TheLobbyIsKeptForWhatIsAskedForBeforeEveryStep) {
  BetweenSteps one;
  void* batch = nullptr;
  for (int i = 0; i < 8; ++i) {
    void* const fresh = one.allocator.allocate(8 * kKilo);
    one.allocator.deallocate(batch);
    batch = fresh;
    one.run_step();
    one.run_optimizer();
  }
  EXPECT_EQ(one.allocator.statistics().peak_reserved_bytes, kMega + 12 * kKilo + 2 * 8 * kKilo);
  EXPECT_EQ(one.allocator.statistics().planned_misses, 0u);
  one.allocator.deallocate(batch);
}

TEST(Planned, TheLobbyIsKeptOnceSomebodyWasInTheWayWithoutIt) {
  BetweenSteps one;
  void* seldom = nullptr;
  std::uint64_t calls = 0;
  for (int i = 0; i < 40; ++i) {
    if (i % 8 == 7) {
      void* const fresh = one.allocator.allocate(12 * kKilo);
      one.allocator.deallocate(seldom);
      seldom = fresh;
    }
    one.run_step();
    one.run_optimizer();
    if (i == 20) calls = one.allocator.statistics().device_calls;
  }
  EXPECT_EQ(one.allocator.statistics().device_calls, calls);
  one.allocator.deallocate(seldom);
}

TEST(Planned, WhatIsFreeElsewhereIsGivenBackBeforeTheRegionIsCommittedAgain) {
  Simulated one;
  const auto step = planned({{.bytes = kMega, .dies_before = 1}});
  std::byte* const first = one.take(512 * kKilo);
  std::byte* const parameter = one.take(100 * kKilo);
  ASSERT_TRUE(one.allocator.begin_planned(step));
  one.give(one.take(kMega));
  one.give(first);
  one.allocator.trim();
  one.give(one.take(512 * kKilo));  // an optimizer's, at addresses that are not the region's
  one.allocator.reset_peaks();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(one.allocator.begin_planned(step));
    one.give(one.take(kMega));
    EXPECT_TRUE(one.allocator.end_planned(step.get()));
    one.give(one.take(512 * kKilo));  // now it finds the region's
  }
  EXPECT_EQ(one.allocator.statistics().peak_reserved_bytes, kMega + 100 * kKilo);
  one.give(parameter);
}

TEST(Planned, TheRegionMovesAwayFromAStranger) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const d = follow(one)[3];
  one.allocator.end_planned();
  std::byte* const stranger = one.take(8 * kKilo);  // where the region was
  one.give(d);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  for (std::byte* piece : follow(one)) EXPECT_TRUE(piece >= stranger + 8 * kKilo || piece + 16 * kKilo <= stranger);
  EXPECT_EQ(one.misses(), 0u);
}

TEST(Planned, UnderTheCapAStrangerStays) {
  Simulated one(104 * kKilo);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const d = follow(one)[3];
  one.allocator.end_planned();
  std::byte* const stranger = one.take(12 * kKilo);  // where the region was: there is no room beside it
  one.give(d);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  EXPECT_EQ(one.allocator.check_invariants(), "");
  one.give(stranger);
  follow(one);
  EXPECT_EQ(one.misses(), 0u);
}

// It was an ordinary piece before the step, whose size is cached again while the region is parked: it goes back to the region, not into the cache.
TEST(Planned, AStrangerThatIsFreedWhileTheRegionIsParkedIsNotCached) {
  Simulated one(116 * kKilo);  // the region and one piece beside it, no second place for the region
  std::byte* const beside = one.take(12 * kKilo);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const d = follow(one)[3];
  one.allocator.end_planned();
  std::byte* const stranger = one.take(12 * kKilo);  // where the region was
  one.give(d);
  const auto step = four_pieces();
  ASSERT_TRUE(one.allocator.begin_planned(step));
  EXPECT_TRUE(one.allocator.end_planned(step.get()));
  one.give(beside);  // now its size is cached
  one.give(stranger);
  one.give(one.take(16 * kKilo));  // the cache is given back for it
  ASSERT_TRUE(one.allocator.begin_planned(step));
  follow(one);
  EXPECT_EQ(one.misses(), 0u);
}

TEST(Planned, ARequestThatWouldFailGivesTheRegionUp) {
  Simulated one(128 * kKilo);
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  one.take(56 * kKilo);  // the region's 96 KiB and this are over the cap
  EXPECT_EQ(one.allocator.statistics().planned_steps_given_up, 1u);
  one.give(a);
  EXPECT_LE(one.allocator.statistics().peak_reserved_bytes, 128 * kKilo);
}

TEST(Planned, ARegionThatDoesNotFitIsNotBegun) {
  Simulated one(80 * kKilo);
  EXPECT_FALSE(one.allocator.begin_planned(four_pieces()));
  EXPECT_EQ(one.allocator.check_invariants(), "");
  one.take(64 * kKilo);
  EXPECT_EQ(one.hits() + one.misses(), 0u);
}

TEST(Planned, SizesThatAreNoPiecesOfThisAllocatorAreRefused) {
  Simulated one;
  EXPECT_FALSE(one.allocator.begin_planned(planned({{.bytes = 2000}})));
  EXPECT_FALSE(one.allocator.begin_planned(planned({{.bytes = 64}})));
  EXPECT_FALSE(one.allocator.begin_planned(planned({{.bytes = 2048, .offset = 32}})));
  EXPECT_FALSE(one.allocator.begin_planned(nullptr));
}

TEST(Planned, AStreamThatIsBehindHoldsItsPiece) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  one.take(32 * kKilo);
  one.device.launch(7);
  ASSERT_TRUE(one.allocator.record_stream(a, 7));
  one.give(a);
  std::byte* const c = one.take(48 * kKilo);
  EXPECT_TRUE(c >= a + 64 * kKilo || c + 48 * kKilo <= a);
  EXPECT_EQ(one.misses(), 1u);
}

TEST(Planned, TrimEndsTheStepAndGivesAllBack) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  one.give(one.take(64 * kKilo));
  one.allocator.trim();
  EXPECT_EQ(one.allocator.statistics().reserved_bytes, 0u);
  EXPECT_EQ(one.allocator.check_invariants(), "");
}

TEST(Planned, EverythingLiveIsShown) {
  Simulated one;
  ASSERT_TRUE(one.allocator.begin_planned(four_pieces()));
  std::byte* const a = one.take(64 * kKilo);
  std::byte* const other = one.take(40 * kKilo);
  std::vector<void*> shown;
  one.allocator.visit_live([&](void* pointer, std::size_t, Tag) { shown.push_back(pointer); });
  EXPECT_EQ(shown.size(), 2u);
  EXPECT_TRUE(std::count(shown.begin(), shown.end(), a) == 1 && std::count(shown.begin(), shown.end(), other) == 1);
  std::size_t live = 0, free = 0;
  for (const Stretch& s : one.allocator.stretches()) (s.state == Stretch::State::kLive ? live : free) += s.bytes;
  EXPECT_EQ(live, 104 * kKilo);
  EXPECT_EQ(live + free, one.allocator.statistics().reserved_bytes);
}

// What is freed beside given back pages joins them; its own pages are still there, and the next request gets those.
TEST(Heap, AStretchOfCommittedPagesAmongHolesIsUsedBeforeMemoryIsCommitted) {
  Simulated one;
  std::byte *const a = one.take(64 * kKilo), *const b = one.take(64 * kKilo), *const c = one.take(64 * kKilo);
  one.give(a);
  one.allocator.trim();
  one.give(b);
  const auto calls = one.allocator.statistics().device_calls;
  const auto reserved = one.allocator.statistics().reserved_bytes;
  std::byte* const again = one.take(60 * kKilo);  // of another size: what is cached has to join its neighbours first
  EXPECT_EQ(again, b);
  EXPECT_EQ(one.allocator.statistics().device_calls, calls);
  EXPECT_EQ(one.allocator.statistics().reserved_bytes, reserved);
  one.give(again);
  one.give(c);
}

TEST(PlannedStep, RefusesPiecesThatMeet) {
  EXPECT_THROW(planned({{.bytes = 64, .offset = 0, .dies_before = 2}, {.bytes = 64, .offset = 32}}), std::invalid_argument);
  EXPECT_NO_THROW(planned({{.bytes = 64, .offset = 0, .dies_before = 2}, {.bytes = 64, .offset = 32, .elsewhere = true}}));
  EXPECT_THROW(planned({{.bytes = 64, .offset = 0, .dies_before = 0}}), std::invalid_argument);
  EXPECT_THROW(planned({{.bytes = 0, .offset = 0}}), std::invalid_argument);
  EXPECT_NO_THROW(planned({{.bytes = 64, .offset = 0, .dies_before = 1}, {.bytes = 64, .offset = 32}}));
}

// One thread follows the step and lets others free what it took, while they allocate for themselves: every byte stays its owner's.
TEST(Planned, ThreadsShareTheAllocatorWhileAStepIsFollowed) {
  HostDevice device;
  CachingAllocator allocator(device);
  std::atomic<std::byte*> handed{nullptr};
  std::atomic<bool> stop{false}, wrong{false};
  const auto other = [&](unsigned seed) {
    std::mt19937 random(seed);
    while (!stop.load(std::memory_order_relaxed)) {
      if (std::byte* const got = handed.exchange(nullptr)) allocator.deallocate(got);
      const std::size_t bytes = 16 * kKilo * (1 + random() % 4);
      auto* const own = static_cast<std::byte*>(allocator.allocate(bytes));
      std::memset(own, static_cast<int>(seed), bytes);
      for (std::size_t i = 0; i < bytes; i += 512) wrong = wrong || own[i] != static_cast<std::byte>(seed);
      allocator.deallocate(own);
    }
  };
  std::thread first(other, 1), second(other, 2);
  for (int step = 0; step < 300; ++step) {
    EXPECT_TRUE(allocator.begin_planned(four_pieces()));
    for (const std::size_t bytes : {64 * kKilo, 32 * kKilo, 48 * kKilo, 16 * kKilo}) {
      auto* const piece = static_cast<std::byte*>(allocator.allocate(bytes));
      std::memset(piece, 3, bytes);
      for (std::size_t i = 0; i < bytes; i += 512) wrong = wrong || piece[i] != std::byte{3};
      if (std::byte* const left = handed.exchange(piece)) allocator.deallocate(left);
    }
    if (step % 3 == 0) allocator.end_planned();
  }
  stop = true;
  first.join();
  second.join();
  allocator.deallocate(handed.load());
  EXPECT_FALSE(wrong);
  EXPECT_EQ(allocator.check_invariants(), "");
}

}  // namespace
}  // namespace reprise
