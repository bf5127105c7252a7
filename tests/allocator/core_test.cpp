#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <stdexcept>

#include "allocator/caching_allocator.hpp"
#include "allocator/host/host_device.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr AllocatorOptions kExact{.small_limit_bytes = 0, .caches = false};

TEST(Cap, CompletesAtTwoPercentOverLive) {
  // Fragment with one size, free every second piece, then ask for larger pieces up to the same live bytes.
  SimulatedDevice device(std::size_t{4} << 30, 4096);
  CachingAllocator allocator(device, kExact);
  std::vector<void*> pointers;
  for (int i = 0; i < 200; ++i) pointers.push_back(allocator.allocate(1'000'000));
  for (std::size_t i = 0; i < pointers.size(); i += 2) allocator.deallocate(pointers[i]);
  const std::size_t live = 200'000'000;
  ASSERT_TRUE(allocator.set_cap(live / 100 * 102));
  for (int i = 0; i < 50; ++i) ASSERT_NE(allocator.allocate(2'000'000), nullptr) << i << " " << allocator.statistics().reserved_bytes;
  EXPECT_EQ(allocator.statistics().live_bytes, live);
  EXPECT_LE(allocator.statistics().reserved_bytes, live / 100 * 102);
  EXPECT_EQ(allocator.check_invariants(), "");
}

TEST(Cap, CompletesRandomSizesAtTwoPercentOverLive) {
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  SimulatedDevice device(std::size_t{4} << 30, 4096);
  CachingAllocator allocator(device, {.caches = false});
  const std::size_t limit = 200 * kMiB;
  ASSERT_TRUE(allocator.set_cap(limit / 100 * 102));
  std::vector<std::pair<void*, std::size_t>> pointers;
  std::size_t live = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::size_t bytes = 200'000 + random() % (8 * kMiB);
    while (live + bytes > limit) {
      std::swap(pointers[random() % pointers.size()], pointers.back());
      allocator.deallocate(pointers.back().first);
      live -= pointers.back().second;
      pointers.pop_back();
    }
    pointers.emplace_back(allocator.allocate(bytes), bytes);
    ASSERT_NE(pointers.back().first, nullptr) << "seed " << seed << " step " << i;
    live += bytes;
  }
  EXPECT_EQ(allocator.check_invariants(), "");
}

TEST(Cap, IsKeptAsItWasWhenLiveDoesNotFit) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, kExact);
  void* const pointer = allocator.allocate(10 * kMiB);
  EXPECT_FALSE(allocator.set_cap(9 * kMiB));
  EXPECT_EQ(allocator.statistics().cap_bytes, kNoCap);
  EXPECT_TRUE(allocator.set_cap(10 * kMiB));
  EXPECT_EQ(allocator.allocate(1), nullptr);
  EXPECT_EQ(allocator.statistics().failed_allocations, 1u);
  allocator.deallocate(pointer);
  EXPECT_TRUE(allocator.set_cap(kMiB));
  EXPECT_LE(allocator.statistics().reserved_bytes, kMiB);
}

TEST(Pressure, IsAskedWithNoLockAndServesTheRequest) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, kExact);
  ASSERT_TRUE(allocator.set_cap(4 * kMiB));
  std::vector<void*> held;
  for (int i = 0; i < 4; ++i) held.push_back(allocator.allocate(kMiB));
  int calls = 0;
  allocator.set_pressure([&](std::size_t needed) -> std::size_t {
    ++calls;
    EXPECT_EQ(needed, 2 * kMiB);
    EXPECT_EQ(allocator.check_invariants(), "");       // takes the lock
    EXPECT_EQ(allocator.allocate(8 * kMiB), nullptr);  // nested: fails, asks nobody
    if (held.empty()) return 0;
    allocator.deallocate(held.back());
    held.pop_back();
    return kMiB;
  });
  EXPECT_NE(allocator.allocate(2 * kMiB), nullptr);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(allocator.statistics().pressure_calls, 2u);
  EXPECT_EQ(allocator.statistics().pressure_bytes, 2 * kMiB);
}

TEST(Pressure, EndsWhenTheCallbackSaysZeroThrowsOrLies) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, kExact);
  ASSERT_TRUE(allocator.set_cap(kMiB));
  int calls = 0;
  allocator.set_pressure([&](std::size_t) { return ++calls, std::size_t{0}; });
  EXPECT_EQ(allocator.allocate(2 * kMiB), nullptr);
  allocator.set_pressure([&](std::size_t) -> std::size_t { throw std::runtime_error(std::to_string(++calls)); });
  EXPECT_EQ(allocator.allocate(2 * kMiB), nullptr);
  allocator.set_pressure([&](std::size_t) { return ++calls, std::size_t{1}; });  // nothing was freed
  EXPECT_EQ(allocator.allocate(2 * kMiB), nullptr);
  EXPECT_EQ(calls, 3);
}

TEST(Pressure, IsAskedWhenTheCapIsLowered) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, kExact);
  void* held = allocator.allocate(4 * kMiB);
  allocator.set_pressure([&](std::size_t needed) -> std::size_t {
    EXPECT_EQ(needed, 3 * kMiB);
    if (held == nullptr) return 0;
    allocator.deallocate(held);
    held = nullptr;
    return 4 * kMiB;
  });
  EXPECT_TRUE(allocator.set_cap(kMiB));
  EXPECT_EQ(held, nullptr);
}

TEST(SteadyState, MakesNoDeviceCall) {
  HostDevice device;
  CachingAllocator allocator(device);
  std::mt19937_64 random(7);
  std::vector<std::size_t> sizes(300);
  for (auto& bytes : sizes) bytes = 1 + random() % (std::size_t{1} << (random() % 23));
  std::vector<std::size_t> order(sizes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  const auto step = [&] {
    std::vector<void*> pointers;
    for (const std::size_t bytes : sizes) pointers.push_back(allocator.allocate(bytes));
    for (const std::size_t i : order) allocator.deallocate(pointers[i]);
  };
  for (int i = 0; i < 5; ++i) step();
  const std::uint64_t calls = allocator.statistics().device_calls;
  for (int i = 0; i < 50; ++i) step();
  EXPECT_EQ(allocator.statistics().device_calls, calls);
}

class Counted : public ::testing::TestWithParam<bool> {};  // with caches, or without

TEST_P(Counted, PeaksAndClassesAreExact) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, {.caches = GetParam()});
  void* const first = allocator.allocate(100);
  void* const second = allocator.allocate(5000);
  EXPECT_EQ(allocator.statistics().live_bytes, 5100u);
  EXPECT_EQ(allocator.statistics().allocated_bytes, 128u + 5056u);
  allocator.deallocate(second);
  EXPECT_EQ(allocator.statistics().peak_live_bytes, 5100u);
  EXPECT_EQ(allocator.statistics().allocations_per_class[7], 1u);
  EXPECT_EQ(allocator.statistics().allocations_per_class[13], 1u);
  allocator.reset_peaks();
  EXPECT_EQ(allocator.statistics().peak_live_bytes, 100u);
  allocator.deallocate(first);
  EXPECT_EQ(allocator.statistics().allocations, 2u);
  EXPECT_EQ(allocator.statistics().frees, 2u);
}

TEST_P(Counted, WhatIsFreedAndTakenAgainCountsAgain) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device, {.caches = GetParam()});
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{5000}}) {
    allocator.deallocate(allocator.allocate(bytes));
    allocator.reset_peaks();
    void* const again = allocator.allocate(bytes - 1);  // from where the first was put; one byte less is live
    EXPECT_EQ(allocator.statistics().live_bytes, bytes - 1);
    EXPECT_EQ(allocator.statistics().peak_live_bytes, bytes - 1);
    allocator.deallocate(again);
    EXPECT_EQ(allocator.statistics().live_bytes, 0u);
    EXPECT_EQ(allocator.statistics().allocated_bytes, 0u);
    EXPECT_EQ(allocator.statistics().peak_live_bytes, bytes - 1);
  }
  EXPECT_EQ(allocator.statistics().allocations_per_class[7], 2u);
  EXPECT_EQ(allocator.statistics().allocations_per_class[13], 2u);
  EXPECT_EQ(allocator.statistics().allocations, 4u);
  EXPECT_EQ(allocator.statistics().frees, 4u);
}

INSTANTIATE_TEST_SUITE_P(Caches, Counted, ::testing::Bool());

TEST(Cache, IsNeverAReasonToCommit) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device);
  std::vector<void*> held;
  for (int i = 0; i < 8; ++i) held.push_back(allocator.allocate(kMiB));
  for (void* pointer : held) allocator.deallocate(pointer);
  const std::size_t reserved = allocator.statistics().reserved_bytes;
  allocator.deallocate(allocator.allocate(8 * kMiB));  // the eight joined again
  EXPECT_EQ(allocator.statistics().reserved_bytes, reserved);
}

TEST(Cache, SizesThatShareAStackServeEachOther) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device);
  for (std::size_t bytes = 2048; bytes < 2048 + 64 * 2000; bytes += 64) {  // more sizes than stacks
    allocator.deallocate(allocator.allocate(bytes));
    ASSERT_EQ(allocator.check_invariants(), "") << bytes;
  }
  EXPECT_EQ(allocator.statistics().live_bytes, 0u);
  allocator.trim();
  EXPECT_EQ(device.committed_bytes(), 0u);
}

TEST(Cache, AnAddressMayChangeItsClass) {
  SimulatedDevice device(std::size_t{1} << 30, 4096);
  CachingAllocator allocator(device);
  void* const first = allocator.allocate(64);
  allocator.deallocate(first);
  EXPECT_EQ(allocator.allocate(64), first);  // popped: remembered as what was handed out last
  allocator.deallocate(first);
  allocator.trim();  // its slab is free for any class
  EXPECT_EQ(allocator.allocate(128), first);
  allocator.deallocate(first);
  EXPECT_EQ(allocator.check_invariants(), "");
}

TEST(Tags, LiveWithTheAllocation) {
  HostDevice device;
  CachingAllocator allocator(device);
  for (const std::size_t bytes : {64u, 100'000u}) {
    void* const pointer = allocator.allocate(bytes);
    EXPECT_EQ(allocator.tag(pointer), Tag{});
    const Tag tag{.category = 200, .saved = true, .region = 123456};
    allocator.set_tag(pointer, tag);
    EXPECT_EQ(allocator.tag(pointer), tag);
    EXPECT_EQ(allocator.size_of(pointer), bytes);
    int shown = 0;
    allocator.visit_live([&](void* at, std::size_t size, Tag found) { shown += at == pointer && size == bytes && found == tag; });
    EXPECT_EQ(shown, 1);
    allocator.deallocate(pointer);
    EXPECT_EQ(allocator.check_invariants(), "");
    void* const again = allocator.allocate(bytes);  // the same memory, without the tag
    EXPECT_EQ(again, pointer);
    EXPECT_EQ(allocator.tag(again), Tag{});
    allocator.deallocate(again);
  }
}

class Recorder : public AllocationObserver {
 public:
  void on_allocate(void* pointer, std::size_t bytes, Tag) noexcept override { text += "+" + std::to_string(bytes), last = pointer; }
  void on_free(void* pointer, std::size_t bytes) noexcept override { text += "-" + std::to_string(bytes), last = pointer; }
  std::string text;
  void* last = nullptr;
};

TEST(Observer, HearsEveryAllocationAndFreeOnce) {
  HostDevice device;
  CachingAllocator allocator(device);
  Recorder recorder;
  void* const before = allocator.allocate(10);
  allocator.set_observer(&recorder);
  void* const small = allocator.allocate(20);
  EXPECT_EQ(recorder.last, small);
  void* const large = allocator.allocate(30'000);
  allocator.deallocate(small);
  allocator.deallocate(large);
  allocator.deallocate(before);
  allocator.deallocate(nullptr);
  EXPECT_EQ(recorder.text, "+20+30000-20-30000-10");
  allocator.set_observer(nullptr);
}

TEST(Mistakes, OptionsAreNamedWithTheirLimits) {
  HostDevice device;
  try {
    CachingAllocator allocator(device, {.rounding_bytes = 48});
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "rounding_bytes is 48, must be a power of two of at least 16");
  }
  EXPECT_THROW(CachingAllocator(device, {.small_limit_bytes = 100}), std::invalid_argument);
}

TEST(MistakesDeathTest, FreeingTwiceAborts) {
  HostDevice device;
  CachingAllocator allocator(device);
  for (const std::size_t bytes : {64u, 100'000u}) {
    void* const pointer = allocator.allocate(bytes);
    allocator.deallocate(pointer);
    EXPECT_DEATH(allocator.deallocate(pointer), "not live|not a live pointer");
  }
  int foreign = 0;
  EXPECT_DEATH(allocator.deallocate(&foreign), "not a live pointer of this allocator");
}

TEST(Zero, IsServedAsOneByte) {
  HostDevice device;
  CachingAllocator allocator(device);
  void* const pointer = allocator.allocate(0);
  EXPECT_EQ(allocator.size_of(pointer), 1u);
  allocator.deallocate(pointer);
}

TEST(Pools, CountRequestsUpToALimitAndAboveApart) {
  SimulatedDevice device(std::size_t{64} << 20, std::size_t{1} << 16);
  CachingAllocator allocator(device, {.rounding_bytes = 512, .small_limit_bytes = 0, .caches = false, .pool_limit_bytes = 1 << 20});
  void* const small = allocator.allocate(1 << 20);
  void* const large = allocator.allocate((1 << 20) + 1);
  void* const gone = allocator.allocate(100, 3);
  ASSERT_TRUE(allocator.record_stream(gone, 4));
  allocator.deallocate(gone);
  const auto shown = [](const Tally& tally) { return std::array{tally.now, tally.peak, tally.given, tally.taken_back}; };
  PoolStatistics pools = allocator.pool_statistics();
  EXPECT_EQ(shown(pools.all.allocations), (std::array<std::int64_t, 4>{2, 3, 3, 1}));
  EXPECT_EQ(shown(pools.small.allocated_bytes), (std::array<std::int64_t, 4>{1 << 20, (1 << 20) + 512, (1 << 20) + 512, 512}));
  EXPECT_EQ(shown(pools.small.requested_bytes), (std::array<std::int64_t, 4>{1 << 20, (1 << 20) + 100, (1 << 20) + 100, 100}));
  EXPECT_EQ(shown(pools.large.allocated_bytes), (std::array<std::int64_t, 4>{(1 << 20) + 512, (1 << 20) + 512, (1 << 20) + 512, 0}));
  EXPECT_EQ(allocator.check_invariants(), "");
  allocator.reset_pool_peaks();
  allocator.reset_pool_totals();
  allocator.deallocate(small);
  allocator.deallocate(large);
  pools = allocator.pool_statistics();
  EXPECT_EQ(shown(pools.all.allocations), (std::array<std::int64_t, 4>{0, 2, 0, 2}));
  EXPECT_EQ(shown(pools.large.requested_bytes), (std::array<std::int64_t, 4>{0, (1 << 20) + 1, 0, (1 << 20) + 1}));
  EXPECT_EQ(allocator.statistics().peak_live_bytes, std::size_t{2 << 20} + 101) << "the others' peaks are their own";
  EXPECT_THROW(CachingAllocator(device, {.pool_limit_bytes = 1 << 20}), std::invalid_argument);
}

}  // namespace
}  // namespace reprise
