// Threads and forks.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "allocator/caching_allocator.hpp"
#include "allocator/host/host_device.hpp"

namespace reprise {
namespace {

TEST(Threads, ShareOneAllocatorUnderOneCap) {
  HostDevice device;
  CachingAllocator allocator(device);
  const std::size_t cap = std::size_t{16} << 20;
  ASSERT_TRUE(allocator.set_cap(cap));
  std::mutex exchange_lock;
  std::vector<std::pair<unsigned char*, std::size_t>> exchange;  // freed by another thread than the one that allocated
  std::atomic<bool> wrong{false};
  const auto work = [&](unsigned seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20'000; ++i) {
      const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 17));
      auto* const pointer = static_cast<unsigned char*>(allocator.allocate(bytes));
      if (pointer != nullptr) std::memset(pointer, static_cast<int>(bytes % 251), bytes);
      const std::lock_guard hold(exchange_lock);
      if (pointer != nullptr) exchange.emplace_back(pointer, bytes);
      while (exchange.size() > 100) {
        const std::size_t index = random() % exchange.size();
        const auto [taken, size] = exchange[index];
        if (taken[0] != size % 251 || taken[size - 1] != size % 251) wrong = true;
        allocator.deallocate(taken);
        exchange[index] = exchange.back();
        exchange.pop_back();
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (int i = 0; i < 200; ++i) {
    const Statistics now = allocator.statistics();
    EXPECT_LE(now.reserved_bytes, now.cap_bytes);
    std::this_thread::yield();
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
  EXPECT_EQ(allocator.check_invariants(), "");
  for (const auto& [pointer, bytes] : exchange) allocator.deallocate(pointer);
  EXPECT_EQ(allocator.statistics().live_bytes, 0u);
  allocator.trim();
  EXPECT_EQ(allocator.statistics().cached_bytes, 0u);
  EXPECT_EQ(allocator.statistics().reserved_bytes, 0u);
}

TEST(Threads, WhatAThreadFreedServesTheOthersAndCanBeTrimmed) {
  HostDevice device;
  CachingAllocator allocator(device);
  for (const std::size_t bytes : {std::size_t{64}, std::size_t{100'000}}) {
    void* freed = nullptr;
    std::thread([&] { allocator.deallocate(freed = allocator.allocate(bytes)); }).join();
    void* const mine = allocator.allocate(bytes);
    EXPECT_EQ(mine, freed);
    allocator.deallocate(mine);
  }
  std::thread([&] { allocator.deallocate(allocator.allocate(1 << 20)); }).join();
  allocator.trim();
  EXPECT_EQ(allocator.statistics().cached_bytes, 0u);
  EXPECT_EQ(allocator.statistics().reserved_bytes, 0u);
  EXPECT_EQ(allocator.statistics().frees, 5u);
}

TEST(Threads, PeaksAreExactWhileThreadsTakeTurns) {
  HostDevice device;
  CachingAllocator allocator(device);
  std::atomic<int> turn{0};
  std::size_t live = 0;  // the independent count; whoever has the turn owns it
  std::size_t peak = 0;
  std::atomic<bool> wrong{false};
  const auto work = [&](int me) {
    std::mt19937_64 random(static_cast<unsigned>(me));
    std::vector<std::pair<void*, std::size_t>> mine;
    for (int round = 0; round < 60; ++round) {
      while (turn.load(std::memory_order_acquire) != me) std::this_thread::yield();
      const bool alone = round % 2 == 1;  // long enough to get the lock's key
      for (int i = 0; i < (alone ? 3000 : 5); ++i) {
        if (mine.size() < 20 || random() % 2 == 0) {
          const std::size_t bytes = 1 + random() % (i % 2 == 0 ? 1000 : 50'000);
          mine.emplace_back(allocator.allocate(bytes), bytes);
          peak = std::max(peak, live += bytes);
        } else {
          std::swap(mine[random() % mine.size()], mine.back());
          allocator.deallocate(mine.back().first);
          live -= mine.back().second;
          mine.pop_back();
        }
      }
      const Statistics now = allocator.statistics();
      if (now.live_bytes != live || now.peak_live_bytes != peak) wrong = true;
      if (!allocator.check_invariants().empty()) wrong = true;
      turn.store((me + 1) % 3, std::memory_order_release);
    }
    while (turn.load(std::memory_order_acquire) != me) std::this_thread::yield();
    for (const auto& [pointer, bytes] : mine) {
      allocator.deallocate(pointer);
      live -= bytes;
    }
    turn.store((me + 1) % 3, std::memory_order_release);
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(work, i);
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
  EXPECT_EQ(live, 0u);
  EXPECT_EQ(allocator.statistics().live_bytes, 0u);
  EXPECT_EQ(allocator.statistics().peak_live_bytes, peak);
}

TEST(Threads, CachedMemoryOfAnyThreadIsGivenBackUnderTheCap) {
  HostDevice device;
  CachingAllocator allocator(device);
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  ASSERT_TRUE(allocator.set_cap(8 * kMiB));
  std::thread([&] {
    std::vector<void*> held;
    for (int i = 0; i < 8; ++i) held.push_back(allocator.allocate(kMiB - 64));
    for (void* pointer : held) allocator.deallocate(pointer);  // some stay cached, none is joined with all its neighbours
  }).join();
  void* const all = allocator.allocate(8 * kMiB);
  EXPECT_NE(all, nullptr);
  EXPECT_EQ(allocator.check_invariants(), "");
  allocator.deallocate(all);
}

TEST(Threads, OneThreadMayUseSeveralAllocatorsThatComeAndGo) {
  HostDevice device;
  CachingAllocator lasting(device);
  for (int i = 0; i < 20; ++i) {
    CachingAllocator passing(device);
    void* const first = passing.allocate(100);
    void* const second = lasting.allocate(100);
    passing.deallocate(first);
    lasting.deallocate(second);
    EXPECT_EQ(passing.check_invariants(), "");
  }
  EXPECT_EQ(lasting.check_invariants(), "");
}

class Fork : public ::testing::TestWithParam<bool> {};  // with the lock's key, or without

TEST_P(Fork, TheChildWorksAndHasNoCap) {
  HostDevice device;
  CachingAllocator allocator(device);
  for (std::size_t i = 0; GetParam() && i < BiasedLock::kEnough; ++i) allocator.deallocate(allocator.allocate(64));
  void* const held = allocator.allocate(1 << 20);
  void* const small = allocator.allocate(100);
  ASSERT_TRUE(allocator.set_cap(std::size_t{2} << 20));
  allocator.set_pressure([](std::size_t) -> std::size_t { _exit(9); });
  allocator.before_fork();
  const pid_t child = fork();
  if (child == 0) {
    allocator.after_fork_in_child();
    void* const more = allocator.allocate(64 << 20);
    if (more == nullptr) _exit(2);
    std::memset(more, 1, 64 << 20);
    allocator.deallocate(more);
    allocator.deallocate(held);
    allocator.deallocate(small);
    std::thread([&] { allocator.deallocate(allocator.allocate(5000)); }).join();  // takes the key back
    if (!allocator.check_invariants().empty() || allocator.statistics().live_bytes != 0) _exit(3);
    _exit(0);
  }
  allocator.after_fork_in_parent();
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(allocator.statistics().cap_bytes, std::size_t{2} << 20);
  allocator.deallocate(held);
  allocator.deallocate(small);
}

INSTANTIATE_TEST_SUITE_P(Lock, Fork, ::testing::Bool());

}  // namespace
}  // namespace reprise
