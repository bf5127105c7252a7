// What the engine knows of CUDA memory. It is served by a library of its own (libreprise_cuda.so), which lies next to this one and is opened where torch is a
// CUDA build; without it torch keeps its own allocator there.
#pragma once

#include <cstddef>
#include <string>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/overflow.hpp"
#include "profiler/kernel_clock.hpp"

namespace reprise {

class CudaMemory {
 public:
  virtual ~CudaMemory() = default;
  virtual CachingAllocator* core_of(int device) = 0;           // nullptr: that device stays with torch's own allocator; the reason was printed
  virtual bool set_budget(int device, std::size_t bytes) = 0;  // kNoCap: none; false: what is live does not fit
  virtual std::size_t capacity_bytes(int device) = 0;
  virtual const overflow::Place* pinned_memory() = 0;       // where a learning Pass that does not fit may go on
  virtual bool is_capturing() = 0;                          // a graph, on the current stream of the current device
  virtual KernelClock* kernel_clock(std::string& why) = 0;  // nullptr: there is no CUPTI
};

// Opens the library and installs its allocator, once. Says in one line what failed, if a driver is there at all.
void open_cuda_memory();
CudaMemory* cuda_memory();  // nullptr: not there

}  // namespace reprise
