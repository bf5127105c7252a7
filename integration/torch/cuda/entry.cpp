// The one symbol of libreprise_cuda.so that libreprise_torch.so looks up.
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include "allocator/cuda/driver.hpp"
#include "integration/torch/cuda/cuda_allocator.hpp"
#include "integration/torch/cuda_memory.hpp"
#include "profiler/cupti/cupti_clock.hpp"

namespace reprise::cuda {
namespace {

void* take_pinned(std::size_t bytes) {
  void* pointer = nullptr;  // the device's address of it is the same: addresses are unified on 64-bit Linux
  return Driver::get()->cuMemHostAlloc(&pointer, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP) == CUDA_SUCCESS ? pointer : nullptr;
}

void give_pinned(void* pointer) { Driver::get()->cuMemFreeHost(pointer); }

class Memory final : public CudaMemory {
 public:
  CachingAllocator* core_of(int device) override {
    DeviceMemory* const memory = of(device);
    return memory == nullptr ? nullptr : &memory->core();
  }
  bool set_budget(int device, std::size_t bytes) override { return cuda_allocator()->set_budget(static_cast<c10::DeviceIndex>(device), bytes); }
  std::size_t capacity_bytes(int device) override {
    DeviceMemory* const memory = of(device);
    return memory == nullptr ? 0 : memory->usable_bytes();
  }

  const overflow::Place* pinned_memory() override {
    static constexpr overflow::Place kPinned{&take_pinned, &give_pinned};
    return &kPinned;
  }
  KernelClock* kernel_clock(std::string& why) override { return cupti::clock(why); }
  bool is_capturing() override { return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None; }

 private:
  static DeviceMemory* of(int device) { return cuda_allocator()->memory_of(static_cast<c10::DeviceIndex>(device)); }
};

}  // namespace
}  // namespace reprise::cuda

// nullptr where torch's allocator cannot be decorated; the reason was printed.
extern "C" __attribute__((visibility("default"))) reprise::CudaMemory* reprise_cuda_memory() {
  static auto* const memory = new reprise::cuda::Memory;
  return reprise::cuda::install_cuda_allocator() ? memory : nullptr;
}
