// Driver: the functions of libcuda.so.1 that we use, opened at run time. Nothing links CUDA: a build with this folder runs on machines without a driver.
//
// Threads: get() from any thread; the table is immutable. Failure: get() is nullptr, and why_missing() says in words what could not be had. A driver without
// the functions of virtual memory management is no failure: maps_memory is false.
#pragma once

#include <cuda.h>

#include <string>

namespace reprise::cuda {

// cuda.h defines some of these as macros for their newest version; the macro's value is what is looked up.
#define REPRISE_CUDA_FUNCTIONS(each)                                                                                                          \
  each(cuInit) each(cuDeviceGetAttribute) each(cuDeviceTotalMem) each(cuDevicePrimaryCtxRetain) each(cuCtxPushCurrent) each(cuCtxPopCurrent)  \
      each(cuMemGetInfo) each(cuMemAlloc) each(cuMemFree) each(cuEventCreate) each(cuEventRecord) each(cuEventQuery) each(cuEventSynchronize) \
          each(cuStreamIsCapturing) each(cuThreadExchangeStreamCaptureMode) each(cuMemcpyPeerAsync) each(cuMemHostAlloc) each(cuMemFreeHost)
#define REPRISE_CUDA_MAPPING_FUNCTIONS(each)                                                                                                                \
  each(cuMemGetAllocationGranularity) each(cuMemAddressReserve) each(cuMemAddressFree) each(cuMemCreate) each(cuMemRelease) each(cuMemMap) each(cuMemUnmap) \
      each(cuMemSetAccess)

struct Driver {
#define REPRISE_CUDA_MEMBER(name) decltype(&::name) name = nullptr;  // NOLINT(bugprone-macro-parentheses): a member's name stands in none
  REPRISE_CUDA_FUNCTIONS(REPRISE_CUDA_MEMBER)
  REPRISE_CUDA_MAPPING_FUNCTIONS(REPRISE_CUDA_MEMBER)
#undef REPRISE_CUDA_MEMBER
  bool maps_memory = true;  // all of the mapping functions are there; without: none of them may be called

  static const Driver* get();
  static const std::string& why_missing();
};

}  // namespace reprise::cuda
