// A CudaDevice for tests, on whatever libcuda.so.1 the loader finds: the simulated one where LD_LIBRARY_PATH says so, else a real one.
#pragma once

#include <dlfcn.h>

#include <memory>
#include <string>

#include "allocator/cuda/cuda_device.hpp"

namespace reprise {

inline constexpr StreamId kTestStreams = 3;

// A function of the driver that only tests need.
template <class Function>
Function* driver_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), name));
}

// With streams 1 to kTestStreams; nullptr where there is no driver or no device.
inline std::unique_ptr<cuda::CudaDevice> make_cuda_device() {
  std::string why;
  auto device = cuda::CudaDevice::make(0, why);
  for (StreamId id = 1; device != nullptr && id <= kTestStreams; id++) {
    CUstream stream = nullptr;
    CUcontext context = nullptr;
    cuda::Driver::get()->cuDevicePrimaryCtxRetain(&context, 0);
    cuda::Driver::get()->cuCtxPushCurrent(context);
    if (driver_function<decltype(cuStreamCreate)>("cuStreamCreate")(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) return nullptr;
    if (device->id_of(stream) != id) return nullptr;
  }
  return device;
}

}  // namespace reprise
