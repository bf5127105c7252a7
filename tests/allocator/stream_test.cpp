// Memory freed on one stream serves another only after a Fence: checked with the simulated device's vector clocks.
#include <gtest/gtest.h>

#include <random>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

constexpr AllocatorOptions kGpu{.rounding_bytes = 512, .small_limit_bytes = 0, .caches = false};

TEST(Streams, TheSameStreamReusesAtOnce) {
  SimulatedDevice device(std::size_t{1} << 30);
  CachingAllocator allocator(device, kGpu);
  void* const first = allocator.allocate(1 << 20, 1);
  device.launch(1);
  allocator.deallocate(first);
  EXPECT_EQ(allocator.allocate(1 << 20, 1), first);
}

TEST(Streams, AnotherStreamWaitsForTheFence) {
  SimulatedDevice device(std::size_t{1} << 30);
  CachingAllocator allocator(device, kGpu);
  void* const first = allocator.allocate(1 << 20, 1);
  device.launch(1);
  allocator.deallocate(first);
  EXPECT_NE(allocator.allocate(1 << 20, 2), first);
  device.complete(1);
  EXPECT_EQ(allocator.allocate(1 << 20, 2), first);
}

TEST(Streams, ARecordedStreamHoldsTheMemory) {
  SimulatedDevice device(std::size_t{1} << 30);
  CachingAllocator allocator(device, kGpu);
  void* const first = allocator.allocate(1 << 20, 1);
  ASSERT_TRUE(allocator.record_stream(first, 2));
  device.launch(2);
  allocator.deallocate(first);
  EXPECT_EQ(allocator.statistics().pending_bytes, std::size_t{1} << 20);
  EXPECT_NE(allocator.allocate(1 << 20, 1), first);
  device.complete(2);
  EXPECT_EQ(allocator.allocate(1 << 20, 1), first);
  EXPECT_EQ(allocator.statistics().pending_bytes, 0u);
  EXPECT_EQ(allocator.check_invariants(), "");
}

TEST(Streams, UnderTheCapItWaitsInsteadOfFailing) {
  SimulatedDevice device(std::size_t{1} << 30);
  CachingAllocator allocator(device, kGpu);
  ASSERT_TRUE(allocator.set_cap(std::size_t{4} << 20));
  void* const first = allocator.allocate(4 << 20, 1);
  device.launch(1);
  allocator.deallocate(first);
  EXPECT_NE(allocator.allocate(4 << 20, 2), nullptr);
  EXPECT_TRUE(device.comes_after(2, {1, 1}));
}

struct Use {
  std::uintptr_t begin;
  std::uintptr_t end;
  SimulatedDevice::Work work;
};

TEST(Streams, RandomProgramsNeverRace) {
  const std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int program = 0; program < 40; ++program) {
    SimulatedDevice device(std::size_t{1} << 30, program % 2 == 0 ? 4096 : 2 << 20);
    CachingAllocator allocator(device, program % 4 < 2 ? kGpu : AllocatorOptions{});
    if (program % 3 == 0) {
      ASSERT_TRUE(allocator.set_cap(std::size_t{24} << 20));
    }
    std::vector<Use> past;
    std::vector<std::pair<void*, std::vector<Use>>> live;
    for (int i = 0; i < 1000; ++i) {
      if (live.size() < 20 || random() % 2 == 0) {
        const auto stream = static_cast<StreamId>(random() % 3);
        const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 21));
        void* const pointer = allocator.allocate(bytes, stream);
        if (pointer == nullptr) continue;
        const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
        for (const Use& use : past) {
          if (use.end <= begin || begin + bytes <= use.begin) continue;
          ASSERT_TRUE(device.comes_after(stream, use.work)) << "seed " << seed << ", program " << program << ", step " << i;
        }
        live.push_back({pointer, {{begin, begin + bytes, device.launch(stream)}}});
        if (random() % 3 == 0) {
          const auto other = static_cast<StreamId>(random() % 3);
          ASSERT_TRUE(allocator.record_stream(pointer, other));
          live.back().second.push_back({begin, begin + bytes, device.launch(other)});
        }
      } else {
        std::swap(live[random() % live.size()], live.back());
        allocator.deallocate(live.back().first);
        past.insert(past.end(), live.back().second.begin(), live.back().second.end());
        live.pop_back();
      }
      if (random() % 20 == 0) device.complete(static_cast<StreamId>(random() % 3));
      if (i % 100 == 0) {
        ASSERT_EQ(allocator.check_invariants(), "") << "seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace reprise
