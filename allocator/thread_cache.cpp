#include "allocator/thread_cache.hpp"

#include "allocator/caching_allocator.hpp"

namespace reprise {

thread_local constinit ThreadSlot thread_slot;

namespace {

struct Entry {
  std::shared_ptr<Gate> gate;
  std::uint64_t allocator_id;
  ThreadCache* cache;
};

thread_local constinit bool thread_ended = false;

// Gives a thread's objects back when it ends.
struct ThreadCaches {
  std::vector<Entry> entries;
  ThreadCaches() = default;
  ThreadCaches(const ThreadCaches&) = delete;
  ThreadCaches& operator=(const ThreadCaches&) = delete;
  ~ThreadCaches() {
    thread_ended = true;
    thread_slot = {};
    for (Entry& entry : entries) {
      const std::lock_guard hold(entry.gate->lock);
      if (entry.gate->allocator != nullptr) entry.gate->allocator->retire_cache(entry.cache);
    }
  }
};

thread_local ThreadCaches thread_caches;

}  // namespace

ThreadCache* find_thread_cache(const std::shared_ptr<Gate>& gate, std::uint64_t allocator_id) noexcept {
  if (thread_ended) return nullptr;
  try {
    auto& entries = thread_caches.entries;
    std::erase_if(entries, [](const Entry& entry) {
      const std::lock_guard hold(entry.gate->lock);
      return entry.gate->allocator == nullptr;
    });
    for (const Entry& entry : entries) {
      if (entry.allocator_id != allocator_id) continue;
      thread_slot = {allocator_id, entry.cache};
      return entry.cache;
    }
    auto cache = std::make_unique<ThreadCache>();
    ThreadCache* const made = cache.get();
    entries.push_back({gate, allocator_id, made});
    const std::lock_guard hold(gate->lock);
    gate->caches.push_back(std::move(cache));
    thread_slot = {allocator_id, made};
    return made;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace reprise
