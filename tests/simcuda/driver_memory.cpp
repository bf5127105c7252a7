// libcuda.so.1: virtual memory management. A reservation is an inaccessible mapping; a physical handle is an extent of the device's memory file; to map is
// to map the file there, shared; access is the mapping's protection.
#include <cuda.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "model.hpp"

using namespace simcuda;

namespace {

struct Physical {
  int device;
  std::size_t offset, bytes;
  int references;
};
struct Mapping {
  std::size_t bytes;
  Physical* physical;
};
std::map<std::uintptr_t, Mapping> mappings;
std::map<std::uintptr_t, std::size_t> reservations;

Device& device_of(const Physical& physical) { return state().devices[static_cast<std::size_t>(physical.device)]; }

void give_extent_back(Device& device, std::size_t offset, std::size_t bytes) {
  auto next = device.free_extents.lower_bound(offset);
  if (next != device.free_extents.end() && next->first == offset + bytes) {
    bytes += next->second;
    next = device.free_extents.erase(next);
  }
  if (next != device.free_extents.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += bytes;
      return;
    }
  }
  device.free_extents[offset] = bytes;
}

void release(Physical* physical) {
  if (--physical->references > 0) return;
  Device& device = device_of(*physical);
  const auto offset = static_cast<off_t>(physical->offset), length = static_cast<off_t>(physical->bytes);
  if (device.memory_file >= 0 && fallocate(device.memory_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) != 0)
    std::perror("simcuda: fallocate");
  device.used -= physical->bytes;
  give_extent_back(device, physical->offset, physical->bytes);
  delete physical;
}

void* address(CUdeviceptr pointer) { return reinterpret_cast<void*>(pointer); }

bool overlaps_mapping(std::uintptr_t first, std::size_t bytes) {
  auto at = mappings.upper_bound(first);
  if (at != mappings.end() && at->first < first + bytes) return true;
  return at != mappings.begin() && std::prev(at)->first + std::prev(at)->second.bytes > first;
}

bool is_reserved(std::uintptr_t first, std::size_t bytes) {
  auto at = reservations.upper_bound(first);
  if (at == reservations.begin()) return false;
  --at;
  return first + bytes <= at->first + at->second;
}

}  // namespace

SIMCUDA_API CUresult cuMemGetAllocationGranularity(std::size_t* bytes, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  if (SIMCUDA_CALL) return CUDA_ERROR_NOT_SUPPORTED;
  *bytes = kPageBytes;
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemAddressReserve(CUdeviceptr* pointer, std::size_t bytes, std::size_t alignment, CUdeviceptr hint, unsigned long long) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  SIMCUDA_LOCK;
  if (!state().maps_memory) return CUDA_ERROR_NOT_SUPPORTED;
  if (bytes == 0 || bytes % kPageBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  alignment = std::max(alignment, kPageBytes);
  void* const mapped = mmap(address(hint), bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  const auto first = reinterpret_cast<std::uintptr_t>(mapped), aligned = (first + alignment - 1) / alignment * alignment;
  if (aligned > first) munmap(mapped, aligned - first);
  if (aligned < first + alignment) munmap(address(aligned + bytes), first + alignment - aligned);
  reservations[aligned] = bytes;
  *pointer = aligned;
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemAddressFree(CUdeviceptr pointer, std::size_t bytes) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  const auto at = reservations.find(pointer);
  if (at == reservations.end() || at->second != bytes || overlaps_mapping(pointer, bytes)) return CUDA_ERROR_INVALID_VALUE;
  munmap(address(pointer), bytes);
  reservations.erase(at);
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties, unsigned long long) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  SIMCUDA_LOCK;
  if (bytes == 0 || bytes % kPageBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  Device& device = state().devices[static_cast<std::size_t>(properties->location.id)];
  if (bytes > device.total - device.used) return CUDA_ERROR_OUT_OF_MEMORY;
  const auto fits = std::find_if(device.free_extents.begin(), device.free_extents.end(), [&](const auto& extent) { return extent.second >= bytes; });
  if (fits == device.free_extents.end()) return CUDA_ERROR_OUT_OF_MEMORY;
  const auto [offset, extent_bytes] = *fits;
  device.free_extents.erase(fits);
  if (extent_bytes > bytes) device.free_extents[offset + bytes] = extent_bytes - bytes;
  device.charge(bytes);
  state().clock += kMallocCost;
  *handle = reinterpret_cast<CUmemGenericAllocationHandle>(new Physical{properties->location.id, offset, bytes, 1});
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  release(reinterpret_cast<Physical*>(handle));
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemMap(CUdeviceptr pointer, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle, unsigned long long) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  SIMCUDA_LOCK;
  auto* const physical = reinterpret_cast<Physical*>(handle);
  // The driver takes whole handles only.
  if (pointer % kPageBytes != 0 || offset != 0 || bytes != physical->bytes) return CUDA_ERROR_INVALID_VALUE;
  if (!is_reserved(pointer, bytes) || overlaps_mapping(pointer, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const int file = device_of(*physical).memory_file;  // hollow: none, and the reservation itself is the memory
  if (file >= 0 && mmap(address(pointer), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file, static_cast<off_t>(physical->offset)) == MAP_FAILED)
    return CUDA_ERROR_UNKNOWN;
  physical->references++;
  mappings[pointer] = {bytes, physical};
  state().allocations[pointer] = {bytes, physical->device, Kind::kMapped};
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemSetAccess(CUdeviceptr pointer, std::size_t bytes, const CUmemAccessDesc* access, std::size_t count) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  int protection = PROT_NONE;  // device memory is one memory here: whoever may reach it may
  for (std::size_t i = 0; i < count; i++) {
    if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ) protection |= PROT_READ;
    if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) protection |= PROT_READ | PROT_WRITE;
  }
  for (std::uintptr_t at = pointer; at < pointer + bytes; at = mappings[at].bytes + at)
    if (!mappings.contains(at)) return CUDA_ERROR_INVALID_VALUE;
  return mprotect(address(pointer), bytes, protection) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIMCUDA_API CUresult cuMemUnmap(CUdeviceptr pointer, std::size_t bytes) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  std::uintptr_t end = pointer;
  for (auto at = mappings.find(pointer); at != mappings.end() && at->first == end && end < pointer + bytes; ++at) end += at->second.bytes;
  if (end != pointer + bytes) return CUDA_ERROR_INVALID_VALUE;  // whole mappings only
  for (auto at = mappings.find(pointer); at != mappings.end() && at->first < end; at = mappings.erase(at)) {
    if (mmap(address(at->first), at->second.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
      return CUDA_ERROR_UNKNOWN;
    state().allocations.erase(at->first);
    release(at->second.physical);
  }
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemExportToShareableHandle(void*, CUmemGenericAllocationHandle, CUmemAllocationHandleType, unsigned long long) {
  return static_cast<CUresult>(simcuda_not_simulated(__func__, CUDA_ERROR_NOT_SUPPORTED));
}
SIMCUDA_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle*, void*, CUmemAllocationHandleType) {
  return static_cast<CUresult>(simcuda_not_simulated(__func__, CUDA_ERROR_NOT_SUPPORTED));
}

SIMCUDA_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties, CUmemGenericAllocationHandle handle) {
  *properties = {};
  properties->type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties->location.id = reinterpret_cast<Physical*>(handle)->device;
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* pointer) {
  SIMCUDA_LOCK;
  const auto wanted = reinterpret_cast<std::uintptr_t>(pointer);
  auto at = mappings.upper_bound(wanted);
  if (at == mappings.begin()) return CUDA_ERROR_INVALID_VALUE;
  --at;
  if (wanted >= at->first + at->second.bytes) return CUDA_ERROR_INVALID_VALUE;
  at->second.physical->references++;
  *handle = reinterpret_cast<CUmemGenericAllocationHandle>(at->second.physical);
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuPointerGetAttribute(void* value, CUpointer_attribute which, CUdeviceptr pointer) {
  std::uintptr_t base;
  Allocation allocation;
  if (!find(address(pointer), &base, &allocation)) return CUDA_ERROR_INVALID_VALUE;
  switch (static_cast<int>(which)) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<CUmemorytype*>(value) = allocation.kind == Kind::kHost ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *static_cast<int*>(value) = allocation.device; break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *static_cast<CUdeviceptr*>(value) = base; break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *static_cast<std::size_t*>(value) = allocation.bytes; break;
    default: return static_cast<CUresult>(simcuda_not_simulated(__func__, CUDA_ERROR_NOT_SUPPORTED));
  }
  return CUDA_SUCCESS;
}

SIMCUDA_API CUresult cuMemGetAddressRange(CUdeviceptr* first, std::size_t* bytes, CUdeviceptr pointer) {
  std::uintptr_t base;
  Allocation allocation;
  if (!find(address(pointer), &base, &allocation)) return CUDA_ERROR_INVALID_VALUE;
  if (first != nullptr) *first = base;
  if (bytes != nullptr) *bytes = allocation.bytes;
  return CUDA_SUCCESS;
}
