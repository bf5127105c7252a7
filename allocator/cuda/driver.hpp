// Driver: the functions of libcuda.so.1 that we use, opened at run time. Nothing links CUDA: a build with this folder runs on machines without a driver.
//
// Threads: get() from any thread; the table is immutable. Failure: get() is nullptr, and why_missing() says in words what could not be had.
#pragma once

#include <cuda.h>

#include <string>

namespace reprise::cuda {

// cuda.h defines some of these as macros for their newest version; the macro's value is what is looked up.
#define REPRISE_CUDA_FUNCTIONS(each)                                                                                                                          \
  each(cuInit) each(cuDeviceGetAttribute) each(cuDeviceTotalMem) each(cuDevicePrimaryCtxRetain) each(cuCtxPushCurrent) each(cuCtxPopCurrent)                  \
      each(cuMemGetAllocationGranularity) each(cuMemAddressReserve) each(cuMemAddressFree) each(cuMemCreate) each(cuMemRelease) each(cuMemMap)                \
          each(cuMemUnmap) each(cuMemSetAccess) each(cuEventCreate) each(cuEventRecord) each(cuEventQuery) each(cuEventSynchronize) each(cuStreamIsCapturing) \
              each(cuThreadExchangeStreamCaptureMode) each(cuMemcpyPeerAsync) each(cuMemHostAlloc) each(cuMemFreeHost)

struct Driver {
#define REPRISE_CUDA_MEMBER(name) decltype(&::name) name = nullptr;
  REPRISE_CUDA_FUNCTIONS(REPRISE_CUDA_MEMBER)
#undef REPRISE_CUDA_MEMBER

  static const Driver* get();
  static const std::string& why_missing();
};

}  // namespace reprise::cuda
