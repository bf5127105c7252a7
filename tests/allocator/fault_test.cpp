// Every device call of every scenario fails once; afterwards the invariants hold and the allocator serves again.
#include <gtest/gtest.h>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

constexpr std::size_t kKiB = 1024;

struct Scenario {
  std::size_t sizes[4];
  std::size_t cap_bytes;
  StreamId streams;
  bool trim;
};

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  const std::size_t kinds[][4] = {
      {64, 128, 1000, 1024}, {2 * kKiB, 5 * kKiB, 70 * kKiB, 9 * kKiB}, {64, 300 * kKiB, 4096, 100}, {1 << 20, 3 << 20, 100 * kKiB, 1 << 21}};
  for (const auto& sizes : kinds) {
    for (const std::size_t cap : {kNoCap, std::size_t{8} << 20}) {
      for (const StreamId streams : {1u, 3u}) {
        for (const bool trim : {false, true}) all.push_back({{sizes[0], sizes[1], sizes[2], sizes[3]}, cap, streams, trim});
      }
    }
  }
  return all;
}

void play(CachingAllocator& allocator, SimulatedDevice& device, const Scenario& scenario) {
  std::vector<void*> pointers;
  for (int round = 0; round < 6; ++round) {
    for (StreamId i = 0; i < 12; ++i) {
      const StreamId stream = i % scenario.streams;
      void* const pointer = allocator.allocate(scenario.sizes[i % 4], stream);
      if (pointer == nullptr) continue;  // an honest answer to a fault or a cap
      device.launch(stream);
      if (scenario.streams > 1 && i % 3 == 0) {
        device.launch(2);
        ASSERT_TRUE(allocator.record_stream(pointer, 2));
      }
      pointers.push_back(pointer);
    }
    for (std::size_t i = 0; i < pointers.size(); i += 2) allocator.deallocate(std::exchange(pointers[i], nullptr));
    std::erase(pointers, nullptr);
    if (scenario.trim) allocator.trim();
    if (round == 3) allocator.set_cap(scenario.cap_bytes);
  }
  for (void* pointer : pointers) allocator.deallocate(pointer);
}

TEST(Faults, EveryCallOfEveryScenarioMayFail) {
  const auto all = scenarios();
  ASSERT_GE(all.size(), 20u);
  std::uint64_t faults = 0;
  for (std::size_t number = 0; number < all.size(); ++number) {
    SimulatedDevice clean(std::size_t{1} << 28, 4096);
    std::uint64_t calls = 0;
    {
      CachingAllocator allocator(clean);
      play(allocator, clean, all[number]);
      calls = clean.calls();
    }
    for (std::uint64_t k = 1; k <= calls; ++k, ++faults) {
      SimulatedDevice device(std::size_t{1} << 28, 4096);
      device.fail_call(k);
      CachingAllocator allocator(device);
      play(allocator, device, all[number]);
      ASSERT_EQ(allocator.check_invariants(), "") << "scenario " << number << ", failing call " << k;
      ASSERT_EQ(allocator.statistics().live_bytes, 0u);
      ASSERT_EQ(allocator.statistics().reserved_bytes, device.committed_bytes());
      void* const pointer = allocator.allocate(1 << 20);
      ASSERT_NE(pointer, nullptr) << "scenario " << number << ", failing call " << k;
      allocator.deallocate(pointer);
      allocator.trim();
      ASSERT_EQ(device.committed_bytes(), 0u) << "scenario " << number << ", failing call " << k;
    }
  }
  std::printf("%zu scenarios, %llu faults\n", all.size(), static_cast<unsigned long long>(faults));
}

TEST(Faults, ADeviceThatNeverAnswersGivesNullptr) {
  SimulatedDevice device(std::size_t{1} << 28, 4096);
  device.fail_every_call(true);
  CachingAllocator allocator(device);
  EXPECT_EQ(allocator.allocate(100), nullptr);
  EXPECT_EQ(allocator.allocate(1 << 20), nullptr);
  EXPECT_EQ(allocator.check_invariants(), "");
}

}  // namespace
}  // namespace reprise
