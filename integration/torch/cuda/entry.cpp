// The one symbol of libreprise_cuda.so that libreprise_torch.so looks up.
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include "integration/torch/cuda/cuda_allocator.hpp"
#include "integration/torch/cuda_memory.hpp"

namespace reprise::cuda {
namespace {

class Memory final : public CudaMemory {
 public:
  CachingAllocator* core_of(int device) override {
    DeviceMemory* const memory = of(device);
    return memory == nullptr ? nullptr : &memory->core();
  }
  bool set_budget(int device, std::size_t bytes) override { return cuda_allocator()->set_budget(static_cast<c10::DeviceIndex>(device), bytes); }
  std::size_t capacity_bytes(int device) override {
    DeviceMemory* const memory = of(device);
    return memory == nullptr ? 0 : memory->capacity_bytes();
  }

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
