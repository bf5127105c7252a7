// BiasedLock: a mutex that costs its usual user next to nothing. The thread that comes many times in a row gets the key, and then enters by
// plain stores; the first other thread that comes takes the key back and both go on with the mutex.
//
// Words. Key: one thread's way in without the mutex. Busy: its thread is inside, or about to look whether the key is still its own.
//
// K1: at most one thread is inside
// K2: key.busy is written by key.thread alone; a key is never given to another thread
// K3: the mutex is not held by anybody who is inside with a key, and nobody has the key while the mutex is held
//
// Why it is right: the owner sets busy, then looks at key_; who takes the key back clears key_, then looks at busy. process_barrier() between
// the two makes sure that one of them sees the other, so the owner needs no barrier. Where the kernel has none, nobody ever gets a key.
//
// Threads: that is its job. Not recursive. Cost: with the key 2 loads and 2 stores; without it a mutex; taking a key back some microseconds,
// which is why it takes kEnough entries in a row to get one. Failure: none.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <mutex>

namespace reprise {

// Tells threads that live at the same time apart.
inline const void* this_thread() noexcept {
#if defined(__GNUC__) && !defined(__clang__)
  return __builtin_thread_pointer();
#else
  static thread_local constinit char place = 0;
  return &place;
#endif
}

class BiasedLock {
 public:
  struct Key {
    const void* thread = nullptr;
    std::atomic<bool> busy{false};
  };
  static constexpr std::size_t kEnough = 1024;

  // The owner's way: nullptr when this thread has no key. Never waits, calls nothing.
  [[nodiscard]] Key* enter_with_key() noexcept {
    Key* const key = key_.load(std::memory_order_acquire);
    if (key->thread != this_thread()) return nullptr;
    key->busy.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (key_.load(std::memory_order_acquire) == key) return key;
    key->busy.store(false, std::memory_order_release);
    return nullptr;
  }
  static void leave_with_key(Key* key) noexcept { key->busy.store(false, std::memory_order_release); }

  // Everybody's way. Returns what leave() wants to know.
  [[nodiscard]] Key* enter() noexcept {
    Key* const key = enter_with_key();
    return key != nullptr ? key : enter_shared();
  }
  void leave(Key* key) noexcept {
    if (key != nullptr) return leave_with_key(key);
    mutex_.unlock();
  }
  bool has_owner() const noexcept { return key_.load(std::memory_order_relaxed) != &keys_[0]; }

 private:
  Key* enter_shared() noexcept;
  void take_back(Key* key) noexcept;
  Key* key_for(const void* thread) noexcept;

  std::array<Key, 64> keys_{};  // [0] is nobody's; one for each thread that ever got one
  std::atomic<Key*> key_{&keys_[0]};
  std::mutex mutex_;
  const void* last_ = nullptr;  // who held the mutex last, and how many times in a row
  std::size_t in_a_row_ = 0;
};

class Hold {
 public:
  explicit Hold(BiasedLock& lock) noexcept : lock_(lock), key_(lock.enter()) {}
  ~Hold() { lock_.leave(key_); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  BiasedLock& lock_;
  BiasedLock::Key* key_;
};

}  // namespace reprise
