#include "allocator/cuda/gpu.hpp"

namespace reprise::cuda {

std::optional<Gpu> Gpu::find(int ordinal, std::string& why) {
  Gpu found{Driver::get(), ordinal, nullptr, 0};
  if (found.driver == nullptr) {
    why = Driver::why_missing();
    return std::nullopt;
  }
  if (found.driver->cuDevicePrimaryCtxRetain(&found.context, ordinal) != CUDA_SUCCESS ||
      found.driver->cuDeviceTotalMem(&found.capacity_bytes, ordinal) != CUDA_SUCCESS) {
    why = found.name() + " does not answer";
    return std::nullopt;
  }
  return found;
}

bool Gpu::maps_memory() const {
  int can_map = 0;
  return driver->maps_memory && driver->cuDeviceGetAttribute(&can_map, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, ordinal) == CUDA_SUCCESS &&
         can_map != 0;
}

std::size_t Gpu::free_bytes() const {
  const Within within(*this);
  std::size_t free_now = 0, total = 0;
  return driver->cuMemGetInfo(&free_now, &total) == CUDA_SUCCESS ? free_now : 0;
}

}  // namespace reprise::cuda
