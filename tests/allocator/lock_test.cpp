// BiasedLock: K1 whoever comes, K3, and that the key goes to the thread that comes alone.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "allocator/biased_lock.hpp"
#include "allocator/host/process_barrier.hpp"

namespace reprise {
namespace {

void enter_often(BiasedLock& lock) {
  for (std::size_t i = 0; i <= BiasedLock::kEnough; ++i) const Hold hold(lock);
}

TEST(BiasedLock, GivesTheKeyToAThreadThatComesAlone) {
  if (!process_barrier()) GTEST_SKIP() << "this kernel has no membarrier: nobody gets a key";
  BiasedLock lock;
  EXPECT_EQ(lock.enter_with_key(), nullptr);
  enter_often(lock);
  BiasedLock::Key* const key = lock.enter_with_key();
  EXPECT_NE(key, nullptr);
  BiasedLock::leave_with_key(key);
}

TEST(BiasedLock, TakesTheKeyBackForAnotherThread) {
  if (!process_barrier()) GTEST_SKIP() << "this kernel has no membarrier: nobody gets a key";
  BiasedLock lock;
  enter_often(lock);
  std::thread([&] {
    EXPECT_EQ(lock.enter_with_key(), nullptr);
    const Hold hold(lock);
  }).join();
  EXPECT_EQ(lock.enter_with_key(), nullptr);
  enter_often(lock);
  BiasedLock::Key* const key = lock.enter_with_key();
  EXPECT_NE(key, nullptr);
  BiasedLock::leave_with_key(key);
}

TEST(BiasedLock, NeverGivesAKeyToAnotherThread) {  // K2: a late store to its flag by the former owner would let two threads in
  if (!process_barrier()) GTEST_SKIP() << "this kernel has no membarrier: nobody gets a key";
  BiasedLock lock;
  const auto key_of_this_thread = [&] {
    enter_often(lock);
    BiasedLock::Key* const key = lock.enter_with_key();
    if (key != nullptr) BiasedLock::leave_with_key(key);
    return key;
  };
  BiasedLock::Key* const mine = key_of_this_thread();
  BiasedLock::Key* other = nullptr;
  std::thread([&] { other = key_of_this_thread(); }).join();
  EXPECT_NE(mine, other);
  EXPECT_EQ(key_of_this_thread(), mine);
}

// Plain counters under the lock: a second thread inside loses updates. Bursts long enough for a key alternate with short ones.
TEST(BiasedLock, LetsOneThreadInAtATime) {
  BiasedLock lock;
  std::size_t total = 0;
  bool inside = false;
  bool met = false;
  constexpr std::size_t kBursts = 300;
  const auto work = [&](std::size_t burst) {
    for (std::size_t round = 0; round < kBursts; ++round) {
      for (std::size_t i = 0; i < burst; ++i) {
        const Hold hold(lock);
        met |= std::exchange(inside, true);
        ++total;
        inside = false;
      }
      std::this_thread::yield();
    }
  };
  const std::size_t bursts[] = {3 * BiasedLock::kEnough, 1, BiasedLock::kEnough + 1};
  std::vector<std::thread> threads;
  std::size_t expected = 0;
  for (const std::size_t burst : bursts) {
    threads.emplace_back(work, burst);
    expected += burst * kBursts;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(total, expected);
  EXPECT_FALSE(met);
}

TEST(BiasedLock, GoesOnWithoutKeysWhenAllAreGivenOut) {
  BiasedLock lock;
  constexpr std::size_t kThreads = 70;  // alive at once, so that none has the address of another: more than there are keys
  std::vector<std::thread> threads;
  std::atomic<std::size_t> ready{0};
  std::size_t total = 0;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      while (ready.load() != i) std::this_thread::yield();  // one after the other, so that each comes alone
      enter_often(lock);
      {
        const Hold hold(lock);
        ++total;
      }
      ++ready;
      while (ready.load() < kThreads) std::this_thread::yield();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(total, kThreads);
}

}  // namespace
}  // namespace reprise
