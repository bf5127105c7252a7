// Memory freed on one stream serves another only after a Fence: checked with the simulated device's vector clocks.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"
#include "tests/allocator/stream_program.hpp"

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

using testing::Forgotten;

std::string failure(const testing::StreamProgram& program, const testing::StreamSetting& setting, std::uint64_t seed) {
  const std::string wrong = run(program, setting).wrong;
  return wrong.empty() ? "" : "seed " + std::to_string(seed) + ": " + wrong + "\n" + as_source(minimised(program, setting));
}

TEST(Streams, RandomProgramsNeverRace) {
  const std::uint64_t seed = std::random_device{}();
  testing::StreamOutcome sum;
  for (std::uint64_t number = 0; number < 2000; ++number) {
    const auto program = testing::random_stream_program(seed + number, 60);
    const auto setting = testing::stream_setting(number);
    ASSERT_EQ(failure(program, setting, seed + number), "");
    sum.crossed += run(program, setting).crossed;
  }
  for (std::uint64_t number = 0; number < 12; ++number)
    ASSERT_EQ(failure(testing::random_stream_program(seed + number, 2000), testing::stream_setting(number), seed + number), "");
  EXPECT_GT(sum.crossed, 1000u) << "memory hardly ever changes its stream: nothing was tried";
}

// A check that finds nothing shows nothing: each kind of wait, forgotten, is found.
TEST(Streams, AForgottenWaitIsFound) {
  for (const Forgotten forgotten : {Forgotten::kPassed, Forgotten::kWait, Forgotten::kFence}) {
    bool found = false;
    for (std::uint64_t number = 0; number < 1000 && !found; ++number) {
      auto setting = testing::stream_setting(number);
      setting.forgotten = forgotten;
      found = !run(testing::random_stream_program(1 + number, 60), setting).wrong.empty();
    }
    EXPECT_TRUE(found) << static_cast<int>(forgotten);
  }
}

// Found by a random program: the rest of a piece that could not be filled had gone to another stream meanwhile, and a page without memory lay in both.
TEST(Streams, WhatIsCutOffAndNotFilledStaysOneStreams) {
  using testing::StreamKind;
  const testing::StreamProgram program = {
      {.kind = StreamKind::kAllocate, .slot = 4, .bytes = 104685, .stream = 0},  {.kind = StreamKind::kAllocate, .slot = 6, .bytes = 485677, .stream = 0},
      {.kind = StreamKind::kAllocate, .slot = 5, .bytes = 4039844, .stream = 2}, {.kind = StreamKind::kCap, .bytes = 5094816},
      {.kind = StreamKind::kAllocate, .slot = 3, .bytes = 411384, .stream = 1},  {.kind = StreamKind::kFree, .slot = 6},
      {.kind = StreamKind::kAllocate, .slot = 6, .bytes = 11475, .stream = 3},   {.kind = StreamKind::kAllocate, .slot = 0, .bytes = 157269, .stream = 3},
      {.kind = StreamKind::kAllocate, .slot = 10, .bytes = 368602, .stream = 3},
  };
  EXPECT_EQ(run(program, {.options = kGpu, .page_bytes = 4096}).wrong, "");
}

// The simulated device is the allocator's, under its lock; what the program does on it is done under a lock of its own.
class SharedDevice final : public Device {
 public:
  explicit SharedDevice(std::size_t capacity_bytes) : device_(capacity_bytes, 4096) {}
  std::size_t page_bytes() const noexcept override { return device_.page_bytes(); }
  std::size_t capacity_bytes() const noexcept override { return device_.capacity_bytes(); }
  std::byte* reserve(std::size_t bytes) noexcept override { return device_.reserve(bytes); }
  void release(std::byte* base, std::size_t bytes) noexcept override { device_.release(base, bytes); }
  bool commit(std::byte* first, std::size_t bytes) noexcept override { return device_.commit(first, bytes); }
  bool decommit(std::byte* first, std::size_t bytes) noexcept override { return device_.decommit(first, bytes); }
  std::optional<Fence> record_fence(StreamId stream) noexcept override {
    const Turn turn(mutex_);
    return device_.record_fence(stream);
  }
  bool passed(Fence fence) noexcept override {
    const Turn turn(mutex_);
    return device_.passed(fence);
  }
  void wait(Fence fence) noexcept override {
    const Turn turn(mutex_);
    device_.wait(fence);
  }
  SimulatedDevice::Work launch(StreamId stream) {
    const Turn turn(mutex_);
    return device_.launch(stream);
  }
  void complete(StreamId stream) {
    const Turn turn(mutex_);
    device_.complete(stream);
  }
  bool comes_after(StreamId stream, SimulatedDevice::Work work) {
    const Turn turn(mutex_);
    return device_.comes_after(stream, work);
  }

 private:
  using Turn = std::lock_guard<std::mutex>;
  SimulatedDevice device_;
  std::mutex mutex_;
};

// One stream a thread, and memory of each used on the next one's. Every thread remembers who used a byte range last in a table that all share.
TEST(Streams, ThreadsWithStreamsOfTheirOwnNeverRace) {
  constexpr unsigned kThreads = 4;
  SharedDevice device(std::size_t{16} << 20);
  CachingAllocator allocator(device, {.rounding_bytes = 512, .cap_bytes = std::size_t{4} << 20});
  std::mutex mutex;  // of past
  std::map<std::uintptr_t, std::vector<SimulatedDevice::Work>> past;
  std::atomic<int> early{0}, served{0};
  const auto work = [&](unsigned number) {
    std::mt19937_64 random(number);
    for (int i = 0; i < 3000; ++i) {
      const auto stream = static_cast<StreamId>(number), next = static_cast<StreamId>((number + 1) % kThreads);
      void* const pointer = allocator.allocate(1 + random() % 60'000, stream);
      if (pointer == nullptr) continue;
      ++served;
      std::vector<SimulatedDevice::Work> uses;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        uses = past[reinterpret_cast<std::uintptr_t>(pointer)];
      }
      for (const auto& use : uses) early += device.comes_after(stream, use) ? 0 : 1;
      uses = {device.launch(stream)};
      if (random() % 4 == 0 && allocator.record_stream(pointer, next)) uses.push_back(device.launch(next));
      {
        const std::lock_guard<std::mutex> lock(mutex);
        past[reinterpret_cast<std::uintptr_t>(pointer)] = uses;
      }
      if (random() % 16 == 0) device.complete(stream);
      allocator.deallocate(pointer);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < kThreads; ++number) threads.emplace_back(work, number);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(early, 0);
  EXPECT_GT(served, 1000);
  EXPECT_EQ(allocator.check_invariants(), "");
}

}  // namespace
}  // namespace reprise
