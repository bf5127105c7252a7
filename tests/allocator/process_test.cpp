// Threads and forks.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

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

TEST(Threads, AThreadThatEndsGivesItsObjectsBack) {
  HostDevice device;
  CachingAllocator allocator(device);
  std::thread([&] { allocator.deallocate(allocator.allocate(64)); }).join();
  EXPECT_EQ(allocator.statistics().cached_bytes, 0u);
  EXPECT_EQ(allocator.statistics().frees, 1u);
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

TEST(Fork, TheChildWorksAndHasNoCap) {
  HostDevice device;
  CachingAllocator allocator(device);
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

}  // namespace
}  // namespace reprise
