#include "allocator/biased_lock.hpp"

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "allocator/host/process_barrier.hpp"

namespace reprise {

// With the mutex: takes the key away from whoever has it, and gets one after enough entries in a row.
BiasedLock::Key* BiasedLock::enter_shared() noexcept {
  mutex_.lock();
  if (Key* const key = key_.load(std::memory_order_relaxed); key != &keys_[0]) take_back(key);
  const void* const me = this_thread();
  if (last_ != me) {
    last_ = me;
    in_a_row_ = 0;
  }
  if (++in_a_row_ < kEnough) return nullptr;
  in_a_row_ = 0;
  Key* const mine = key_for(me);
  if (mine == nullptr || !process_barrier()) return nullptr;
  mine->busy.store(true, std::memory_order_relaxed);
  key_.store(mine, std::memory_order_release);
  mutex_.unlock();
  return mine;
}

void BiasedLock::take_back(Key* key) noexcept {
  key_.store(&keys_[0], std::memory_order_relaxed);
  if (!process_barrier()) {  // it worked when the key was given
    std::fprintf(stderr, "reprise: K1: the kernel's barrier for all threads stopped working\n");
    std::abort();
  }
  while (key->busy.load(std::memory_order_acquire)) std::this_thread::yield();
}

BiasedLock::Key* BiasedLock::key_for(const void* thread) noexcept {
  for (std::size_t i = 1; i < keys_.size(); ++i) {
    if (keys_[i].thread == nullptr) keys_[i].thread = thread;
    if (keys_[i].thread == thread) return &keys_[i];
  }
  return nullptr;
}

}  // namespace reprise
