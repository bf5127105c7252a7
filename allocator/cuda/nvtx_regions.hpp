// NvtxRegions: tells a tool that listens to NVTX, compute-sanitizer for one, which bytes of an arena are somebody's. Without it the tool takes what is committed
// for allocated, and misses a kernel that reads what was freed, or the neighbour.
//
// Words, NVTX's own. Heap: the arena, from which others are given memory. Region: what one owner was given, to the byte that was asked for.
//
// X1: the heap's regions are exactly what was added and not removed; who allocates adds after it has the memory, and removes before it gives it back,
//     so that no two regions overlap, whichever threads allocate
//
// Pages that come and go are not told: a region never lies on an uncommitted one (P4). A region ends when its owner frees it, although kernels that were
// launched before may still work there: with compute-sanitizer launches should block (--force-blocking-launches yes, or CUDA_LAUNCH_BLOCKING=1).
// NVIDIA's guide describes heaps that are one allocation: MallocDevice's is, MappedDevice's is many in one range of addresses.
// No compute-sanitizer has run on this yet: what it is told was held against nvtx3/nvToolsExtMem.h and its documentation (tests/simcuda/nvtx_tool.cpp).
//
// Threads: any. Cost: one call of the tool's an allocation and one a free. Failure: make() is nullptr, and says why in words.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace reprise::cuda {

class NvtxRegions {
 public:
  static std::unique_ptr<NvtxRegions> make(const void* first, std::size_t bytes, const std::string& name, std::string& why);
  NvtxRegions() = default;
  NvtxRegions(const NvtxRegions&) = delete;
  NvtxRegions& operator=(const NvtxRegions&) = delete;
  virtual ~NvtxRegions() = default;  // the heap is no more

  virtual void add(const void* first, std::size_t bytes) noexcept = 0;
  virtual void remove(const void* first) noexcept = 0;
};

}  // namespace reprise::cuda
