// Routes: which pool of native's a request goes to. A pool being allocated to (a capture, torch.cuda.use_mem_pool) has a filter that says which streams it wants.
//
// W4: while a pool is being allocated to and its filter wants a stream, native serves that stream
// W8: a filter that wanted a stream is not asked again while native serves that request: it may ask the driver (is this stream being captured?)
//
// Threads: every function from any thread. Cost: one load where there is no route; else a lock that costs its usual user four stores, and the filters.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "allocator/biased_lock.hpp"

namespace reprise::cuda {

class Routes {
 public:
  using Pool = c10::MempoolId_t;
  using Filter = std::function<bool(cudaStream_t)>;

  // The filter as native is to have it: within a Passing it gives the answer that was given here.
  Filter begin(c10::DeviceIndex device, Pool pool, Filter filter);
  void end(c10::DeviceIndex device, Pool pool);
  bool none() const noexcept { return count_.load(std::memory_order_relaxed) == 0; }
  // The number of the route that wants the stream; 0: none does.
  std::uint64_t wanting(c10::DeviceIndex device, cudaStream_t stream) { return none() ? 0 : asked(device, stream); }

  // While it lives this thread passes a request on that `route` wanted (0: none did).
  class Passing {
   public:
    Passing(std::uint64_t route, cudaStream_t stream) noexcept : route_(route), stream_(stream), now_(this_threads), before_(std::exchange(now_, this)) {}
    ~Passing() { now_ = before_; }
    Passing(const Passing&) = delete;
    Passing& operator=(const Passing&) = delete;
    static bool is(std::uint64_t route, cudaStream_t stream) noexcept {
      const Passing* const here = this_threads;
      return here != nullptr && here->route_ == route && here->stream_ == stream;
    }

   private:
    inline static thread_local constinit const Passing* this_threads = nullptr;

    const std::uint64_t route_;
    const cudaStream_t stream_;
    const Passing*& now_;  // this thread's: where it lies is asked once
    const Passing* const before_;
  };

 private:
  std::uint64_t asked(c10::DeviceIndex device, cudaStream_t stream);

  struct Route {
    c10::DeviceIndex device;
    Pool pool;
    Filter filter;
    std::uint64_t number;
  };

  BiasedLock lock_;  // one thread allocates, as a rule, while a pool is being filled
  std::vector<Route> routes_;
  std::uint64_t made_ = 0;
  std::atomic<std::size_t> count_{0};
};

}  // namespace reprise::cuda
