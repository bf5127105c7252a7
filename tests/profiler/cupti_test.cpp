// KernelClock by CUPTI, on the simulated libcupti (LD_LIBRARY_PATH says so); and on the real library without a driver, where it must say no in words.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <thread>

#include "profiler/cupti/cupti_clock.hpp"

namespace reprise {
namespace {

template <class Function>
Function* simulator(const char* name) {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  return driver == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(driver, name));
}

class OnSimulatedCupti : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(clock_, nullptr) << why_;
    ASSERT_NE(launch_, nullptr) << "this libcuda.so.1 is not the simulated one";
  }
  void start() { ASSERT_TRUE(clock_->start(why_)) << why_; }
  // Simulated kernels take 8 microseconds.
  void kernels(int count) const {
    for (int i = 0; i < count; ++i)
      launch_(
          nullptr, [](void*) {}, nullptr, [](void*) {});
  }

  static constexpr double kKernel = 8e-6;
  using Launch = void(void*, void (*)(void*), void*, void (*)(void*));
  using Fill = int(std::uint64_t, unsigned, std::size_t, void*);
  using Fail = void(const char*, std::uint64_t);
  std::string why_;
  KernelClock* clock_ = cupti::clock(why_);
  Launch* launch_ = simulator<Launch>("simcuda_enqueue");
  Fail* fail_ = simulator<Fail>("simcuda_fail");
};

TEST_F(OnSimulatedCupti, WorkIsTheInnermostIds) {
  start();
  kernels(1);
  clock_->push(7);
  kernels(2);
  clock_->push(9);
  kernels(3);
  clock_->pop();
  kernels(1);
  clock_->pop();
  kernels(4);
  const KernelTimes times = clock_->stop();
  ASSERT_EQ(times.seconds.size(), 2u);
  EXPECT_NEAR(times.seconds.at(7), 3 * kKernel, 1e-12);
  EXPECT_NEAR(times.seconds.at(9), 3 * kKernel, 1e-12);
  EXPECT_NEAR(times.unclaimed_seconds, 5 * kKernel, 1e-12);
  EXPECT_EQ(times.records, 11u);
  EXPECT_EQ(times.dropped, 0u);
}

TEST_F(OnSimulatedCupti, FillsCount) {
  auto* const fill = simulator<Fill>("cuMemsetD32Async");
  unsigned memory[256];
  start();
  clock_->push(1);
  fill(reinterpret_cast<std::uint64_t>(memory), 5, 256, nullptr);
  clock_->pop();
  const KernelTimes times = clock_->stop();
  EXPECT_EQ(memory[255], 5u);
  EXPECT_EQ(times.records, 1u);
  EXPECT_TRUE(times.seconds.contains(1));
}

TEST_F(OnSimulatedCupti, EachThreadHasIdsOfItsOwn) {
  start();
  clock_->push(1);
  std::thread([&] {
    kernels(2);  // nobody's
    clock_->push(2);
    kernels(5);
    clock_->pop();
  }).join();
  kernels(3);
  clock_->pop();
  const KernelTimes times = clock_->stop();
  EXPECT_NEAR(times.seconds.at(1), 3 * kKernel, 1e-12);
  EXPECT_NEAR(times.seconds.at(2), 5 * kKernel, 1e-12);
  EXPECT_NEAR(times.unclaimed_seconds, 2 * kKernel, 1e-12);
}

TEST_F(OnSimulatedCupti, AnotherToolKeepsItsRecords) {
  void* const library = dlopen("libcupti.so." REPRISE_CUDA_MAJOR, RTLD_NOW);
  ASSERT_NE(library, nullptr);
  auto* const subscribe = reinterpret_cast<int (*)(void**, void*, void*)>(dlsym(library, "cuptiSubscribe"));
  auto* const unsubscribe = reinterpret_cast<int (*)(void*)>(dlsym(library, "cuptiUnsubscribe"));
  void* other = nullptr;
  ASSERT_EQ(subscribe(&other, nullptr, nullptr), 0);
  EXPECT_FALSE(clock_->start(why_));
  EXPECT_NE(why_.find("held by another tool"), std::string::npos) << why_;
  EXPECT_NE(why_.find("MULTIPLE_SUBSCRIBERS"), std::string::npos) << why_;
  unsubscribe(other);
  start();
  EXPECT_FALSE(clock_->start(why_)) << "it is running";
  clock_->stop();
  EXPECT_EQ(subscribe(&other, nullptr, nullptr), 0) << "nothing is left subscribed";
  unsubscribe(other);
}

TEST_F(OnSimulatedCupti, AStartThatFailsLeavesNothing) {
  for (const char* call : {"cuptiSubscribe", "cuptiActivityRegisterCallbacks", "cuptiActivityEnable"}) {
    fail_(call, 1);
    EXPECT_FALSE(clock_->start(why_)) << call;
    start();
    clock_->push(3);
    kernels(1);
    clock_->pop();
    EXPECT_EQ(clock_->stop().records, 1u) << call;
  }
  fail_("cuptiActivityEnable", 3);  // in the middle
  EXPECT_FALSE(clock_->start(why_));
  start();
  EXPECT_EQ(clock_->stop().records, 0u);
}

TEST_F(OnSimulatedCupti, WhatFindsNoRoomIsCounted) {
  auto* const room = reinterpret_cast<void (*)(int)>(dlsym(dlopen("libcupti.so." REPRISE_CUDA_MAJOR, RTLD_NOW), "simcuda_cupti_drops"));
  ASSERT_NE(room, nullptr);
  start();
  clock_->push(3);
  kernels(2);
  room(4);  // two kernels, with the records of their ids
  kernels(2);
  kernels(1);
  clock_->pop();
  const KernelTimes times = clock_->stop();
  EXPECT_EQ(times.dropped, 4u);
  EXPECT_EQ(times.records, 3u);
  EXPECT_NEAR(times.seconds.at(3), 3 * kKernel, 1e-12);
  start();
  EXPECT_EQ(clock_->stop().dropped, 0u) << "counted once";
}

TEST_F(OnSimulatedCupti, ManyRecordsFillManyBuffers) {
  start();
  clock_->push(4);
  kernels(60'000);  // of 200 bytes and more: several buffers of 4 MiB
  clock_->pop();
  const KernelTimes times = clock_->stop();
  EXPECT_EQ(times.records, 60'000u);
  EXPECT_NEAR(times.seconds.at(4), 60'000 * kKernel, 1e-9);
}

// The toolkit's own libcupti on a machine without a driver (run alone, with its folder in LD_LIBRARY_PATH): it must not even be asked.
TEST(RealCupti, SaysInWordsThatThereIsNoDriver) {
  if (dlopen("libcuda.so.1", RTLD_NOW) != nullptr) GTEST_SKIP() << "skipped: there is a CUDA driver";
  ASSERT_NE(dlopen("libcupti.so." REPRISE_CUDA_MAJOR, RTLD_NOW), nullptr) << dlerror();
  std::string why;
  EXPECT_EQ(cupti::clock(why), nullptr);
  EXPECT_EQ(why, "there is no CUDA driver (libcuda.so.1)");
}

}  // namespace
}  // namespace reprise
