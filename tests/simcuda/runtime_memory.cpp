// libcudart: device and pinned memory, copies and fills.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime.hpp"

using namespace simcuda;

namespace {

constexpr std::size_t kHostPage = 4096;

bool on_device(const void* pointer, std::size_t bytes, const char* what, bool& outside) {
  std::uintptr_t base;
  Allocation allocation;
  if (!find(pointer, &base, &allocation) || allocation.kind == Kind::kHost) return false;
  outside = allocation.kind == Kind::kDevice && reinterpret_cast<std::uintptr_t>(pointer) + bytes > base + allocation.bytes;
  if (outside) std::fprintf(stderr, "simcuda: copy past the end of its %s\n", what);
  return true;
}

cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  bool past_to = false, past_from = false;
  const bool to_device = on_device(to, bytes, "destination", past_to), from_device = on_device(from, bytes, "source", past_from);
  if (past_to || past_from) return fail(cudaErrorInvalidValue);
  const double speed = to_device && from_device ? state().device_bytes_per_nanosecond : kHostBytesPerNanosecond;
  if (state().hollow && to_device && bytes > kHollowBytes) {
    enqueue(stream, copy_cost(static_cast<double>(bytes), speed), {}, WorkKind::kCopy);
    return cudaSuccess;
  }
  enqueue(
      stream, copy_cost(static_cast<double>(bytes), speed), [=] { std::memmove(to, from, bytes); }, WorkKind::kCopy);
  return cudaSuccess;
}

// Whole pages that become zero are given back to the host: large devices cost little memory.
void fill(void* pointer, int value, std::size_t bytes) {
  std::uintptr_t base;
  Allocation allocation;
  const auto start = reinterpret_cast<std::uintptr_t>(pointer), end = start + bytes;
  const auto first = (start + kHostPage - 1) / kHostPage * kHostPage, last = end / kHostPage * kHostPage;
  if (state().hollow && value != 0 && bytes > kHollowBytes) return;
  if (value != 0 || first >= last || !find(pointer, &base, &allocation) || allocation.file >= 0 || (allocation.kind != Kind::kDevice && !state().hollow)) {
    std::memset(pointer, value, bytes);
    return;
  }
  std::memset(pointer, 0, first - start);
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  std::memset(reinterpret_cast<void*>(last), 0, end - last);
}

void add_host(void* pointer, std::size_t bytes) {
  SIMCUDA_LOCK;
  state().allocations[reinterpret_cast<std::uintptr_t>(pointer)] = {bytes, current_device(), Kind::kHost};
}

void remove_host(void* pointer) {
  SIMCUDA_LOCK;
  state().allocations.erase(reinterpret_cast<std::uintptr_t>(pointer));
}

}  // namespace

SIMCUDA_API cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  SIMCUDA_LOCK;
  const Device& device = state().devices[static_cast<std::size_t>(current_device())];
  *free_bytes = device.shown - std::min(device.shown, device.used);
  *total_bytes = device.shown;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (SIMCUDA_CALL) return fail(cudaErrorMemoryAllocation);
  return fail(allocate(current_device(), bytes, pointer));
}
SIMCUDA_API cudaError_t cudaFree(void* pointer) {
  (void)SIMCUDA_CALL;
  return fail(deallocate(pointer));
}
SIMCUDA_API cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  if (SIMCUDA_CALL) return fail(cudaErrorMemoryAllocation);
  *pointer = bytes == 0 ? nullptr : std::aligned_alloc(kHostPage, (bytes + kHostPage - 1) / kHostPage * kHostPage);
  if (bytes > 0) add_host(*pointer, bytes);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) { return cudaHostAlloc(pointer, bytes, 0); }
SIMCUDA_API cudaError_t cudaFreeHost(void* pointer) {
  remove_host(pointer);
  std::free(pointer);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaHostRegister(void* pointer, std::size_t bytes, unsigned) {
  add_host(pointer, bytes);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaHostUnregister(void* pointer) {
  remove_host(pointer);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  std::uintptr_t base;
  Allocation allocation;
  void* const plain = const_cast<void*>(pointer);
  if (!find(pointer, &base, &allocation)) {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -2;
    attributes->hostPointer = plain;
    return cudaSuccess;
  }
  const bool host = allocation.kind == Kind::kHost;
  attributes->type = host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  attributes->device = allocation.device;
  attributes->devicePointer = plain;
  attributes->hostPointer = host ? plain : nullptr;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  enqueue(
      stream, copy_cost(static_cast<double>(bytes), state().device_bytes_per_nanosecond), [=] { fill(pointer, value, bytes); }, WorkKind::kFill);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) { return cudaMemsetAsync(pointer, value, bytes, nullptr); }
SIMCUDA_API cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  return copy(to, from, bytes, stream);
}
SIMCUDA_API cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  (void)SIMCUDA_CALL;
  const cudaError_t error = copy(to, from, bytes, nullptr);
  if (error == cudaSuccess) synchronize(stream_of(nullptr));
  return error;
}
SIMCUDA_API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  return copy(to, from, bytes, stream);
}
SIMCUDA_API cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width, std::size_t height,
                                          cudaMemcpyKind, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  enqueue(
      stream, copy_cost(static_cast<double>(width * height), state().device_bytes_per_nanosecond),
      [=] {
        for (std::size_t row = 0; row < height; row++)
          std::memmove(static_cast<std::byte*>(to) + row * to_pitch, static_cast<const std::byte*>(from) + row * from_pitch, width);
      },
      WorkKind::kCopy);
  return cudaSuccess;
}
