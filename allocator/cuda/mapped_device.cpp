#include "allocator/cuda/mapped_device.hpp"

namespace reprise::cuda {

namespace {

CUdeviceptr address_of(const std::byte* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

CUmemAllocationProp properties(int ordinal) {
  CUmemAllocationProp wanted{};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  wanted.location.id = ordinal;
  return wanted;
}

}  // namespace

std::unique_ptr<MappedDevice> MappedDevice::make(const Gpu& gpu, std::string& why) {
  if (!gpu.maps_memory()) {
    why = gpu.name() + " has no virtual memory management";
    return nullptr;
  }
  std::size_t page = 0;
  const CUmemAllocationProp wanted = properties(gpu.ordinal);
  if (gpu.driver->cuMemGetAllocationGranularity(&page, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS) {
    why = gpu.name() + " does not answer";
    return nullptr;
  }
  return std::unique_ptr<MappedDevice>(new MappedDevice(gpu, page));
}

std::byte* MappedDevice::reserve(std::size_t bytes) noexcept {
  const Within within(gpu_);
  CUdeviceptr base = 0;
  return gpu_.driver->cuMemAddressReserve(&base, bytes, page_bytes_, 0, 0) == CUDA_SUCCESS ? reinterpret_cast<std::byte*>(base) : nullptr;
}

void MappedDevice::release(std::byte* base, std::size_t bytes) noexcept {
  const Within within(gpu_);
  gpu_.driver->cuMemAddressFree(address_of(base), bytes);
}

// The handle is let go of at once: the memory lives as long as it is mapped.
bool MappedDevice::map_page(CUdeviceptr page) noexcept {
  const CUmemAllocationProp wanted = properties(gpu_.ordinal);
  CUmemGenericAllocationHandle memory;
  if (gpu_.driver->cuMemCreate(&memory, page_bytes_, &wanted, 0) != CUDA_SUCCESS) return false;
  const bool mapped = gpu_.driver->cuMemMap(page, page_bytes_, 0, memory, 0) == CUDA_SUCCESS;
  gpu_.driver->cuMemRelease(memory);
  return mapped;
}

bool MappedDevice::commit(std::byte* first, std::size_t bytes) noexcept {
  const Within within(gpu_);
  const CUdeviceptr begin = address_of(first);
  CUdeviceptr end = begin;
  while (end < begin + bytes && map_page(end)) end += page_bytes_;
  CUmemAccessDesc access{};
  access.location = properties(gpu_.ordinal).location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (end < begin + bytes || gpu_.driver->cuMemSetAccess(begin, bytes, &access, 1) != CUDA_SUCCESS) {
    if (end > begin) gpu_.driver->cuMemUnmap(begin, end - begin);
    return false;
  }
  note_driver_gave();
  note_commit(first, bytes);
  return true;
}

bool MappedDevice::decommit(std::byte* first, std::size_t bytes) noexcept {
  const Within within(gpu_);
  if (gpu_.driver->cuMemUnmap(address_of(first), bytes) != CUDA_SUCCESS) return false;
  note_driver_took();
  note_decommit(first, bytes);
  return true;
}

}  // namespace reprise::cuda
