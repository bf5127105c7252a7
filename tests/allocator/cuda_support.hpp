// CudaDevices for tests, on whatever libcuda.so.1 the loader finds: the simulated one where LD_LIBRARY_PATH says so, else a real one.
#pragma once

#include <dlfcn.h>

#include <memory>
#include <string>

#include "allocator/cuda/malloc_device.hpp"
#include "allocator/cuda/mapped_device.hpp"

namespace reprise {

inline constexpr StreamId kTestStreams = 3;
inline constexpr std::size_t kTestBlockBytes = std::size_t{512} << 20;

// A function of the driver that only tests need.
template <class Function>
Function* driver_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), name));
}

inline bool add_test_streams(cuda::CudaDevice& device, const cuda::Gpu& gpu) {
  for (StreamId id = 1; id <= kTestStreams; id++) {
    CUstream stream = nullptr;
    gpu.driver->cuCtxPushCurrent(gpu.context);
    if (driver_function<decltype(cuStreamCreate)>("cuStreamCreate")(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) return false;
    if (device.id_of(stream) != id) return false;
  }
  return true;
}

// There is no driver, or no device: a test that asks for one is skipped. With one, that it cannot be had is a failure.
inline bool cuda_is_missing() {
  std::string why;
  return !cuda::Gpu::find(0, why);
}

// With streams 1 to kTestStreams.
inline std::unique_ptr<cuda::CudaDevice> make_cuda_device(bool by_malloc) {
  std::string why;
  const auto gpu = cuda::Gpu::find(0, why);
  if (!gpu) return nullptr;
  std::unique_ptr<cuda::CudaDevice> device;
  if (by_malloc) {
    device = cuda::MallocDevice::make(*gpu, kTestBlockBytes, why);
  } else {
    device = cuda::MappedDevice::make(*gpu, why);
  }
  return device != nullptr && add_test_streams(*device, *gpu) ? std::move(device) : nullptr;
}
inline std::unique_ptr<cuda::CudaDevice> make_mapped_device() { return make_cuda_device(false); }
inline std::unique_ptr<cuda::CudaDevice> make_malloc_device() { return make_cuda_device(true); }

}  // namespace reprise
