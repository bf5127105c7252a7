// Recycled: memory of objects that are made and destroyed thousands of times a step is kept for the next ones of their kind. (Saved tensors' handles live
// from forward to backward: so many at once that malloc's own cache does not serve them.)
//
// A thread has a list of its own; what is freed by other threads than those that allocate goes round by a shared one, in batches.
// Threads: any. Cost: a push or a pop, no lock; a mutex once in kBatch where threads differ. What a thread keeps goes to the shared list when it ends;
// at most kMost blocks lie there. Failure: as operator new.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>

namespace reprise::engine {

template <class T>
class Recycled {
 public:
  static void* operator new(std::size_t bytes) {
    if (bytes != sizeof(T)) return ::operator new(bytes);
    List& own = own_list();
    if (!own.first) refill(own);
    return own.first ? own.pop() : ::operator new(bytes);
  }
  static void operator delete(void* memory, std::size_t bytes) noexcept {
    if (bytes != sizeof(T)) return ::operator delete(memory);
    List& own = own_list();
    own.push(memory);
    if (own.count >= kKept || own.ended) give(own, own.ended ? own.count : kBatch);
  }

 private:
  static constexpr std::size_t kBatch = 256, kKept = 1 << 15, kMost = 1 << 15;

  struct Block {
    Block* next;
  };
  struct List {
    Block* first = nullptr;
    std::size_t count = 0;
    bool ended = false;  // its thread is ending: what is freed from now on goes round at once
    void push(void* memory) {
      first = new (memory) Block{first};
      count++;
    }
    void* pop() {
      count--;
      Block* const taken = first;
      first = taken->next;
      __builtin_prefetch(first, 1);
      return taken;
    }
  };
  struct Shared {
    std::mutex mutex;
    List list;
  };

  struct End {  // its destructor runs when the thread ends; the list itself has none, so that it can be used after that
    ~End() {
      List& own = list_of_thread();
      own.ended = true;
      give(own, own.count);
    }
  };
  static List& list_of_thread() {
    thread_local List list;
    return list;
  }
  static List& own_list() {
    List& list = list_of_thread();
    if (list.count == 0 && !list.ended) {
      thread_local End end;
      (void)end;
    }
    return list;
  }
  static Shared& shared() {
    static Shared* const instance = new Shared;  // objects may outlive static ones
    return *instance;
  }

  static void refill(List& own) {
    const std::lock_guard<std::mutex> lock(shared().mutex);
    for (std::size_t i = 0; i < kBatch && shared().list.first; i++) own.push(shared().list.pop());
  }
  static void give(List& own, std::size_t count) noexcept {
    const std::lock_guard<std::mutex> lock(shared().mutex);
    for (; count > 0 && own.first; count--) {
      if (shared().list.count < kMost) shared().list.push(own.pop());
      else ::operator delete(own.pop());
    }
  }
};

}  // namespace reprise::engine
