// libcudart: memory and events that another process of this simulator opens. What is shared gets a file behind it at its first handle; the other process opens that
// file through /proc while the owner lives. As on a device, a process cannot open what is its own.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtime.hpp"

using namespace simcuda;

namespace {

struct MemoryHandle {
  pid_t process;
  int file;
  std::size_t bytes;  // whole pages
};
static_assert(sizeof(MemoryHandle) <= sizeof(cudaIpcMemHandle_t));

template <class To, class From>
To as(const From& from) {
  To to{};
  std::memcpy(&to, &from, std::min(sizeof(to), sizeof(from)));
  return to;
}

// The same bytes at the same address, now of a file; -1 where there can be none.
int move_to_file(void* pointer, std::size_t size) {
  const int file = memfd_create("simcuda shared", MFD_CLOEXEC);
  if (file < 0) return -1;
  const bool copied = ftruncate(file, static_cast<off_t>(size)) == 0 && pwrite(file, pointer, size, 0) == static_cast<ssize_t>(size);
  if (copied && mmap(pointer, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == pointer) return file;
  close(file);
  return -1;
}

}  // namespace

SIMCUDA_API cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  if (SIMCUDA_CALL) return fail(cudaErrorMemoryAllocation);
  SIMCUDA_LOCK;
  std::uintptr_t base;
  Allocation found;
  if (state().hollow || !find(pointer, &base, &found) || found.kind != Kind::kDevice) return fail(cudaErrorInvalidValue);
  Allocation& allocation = state().allocations[base];
  const std::size_t size = charged(allocation.bytes);
  if (allocation.file < 0) allocation.file = move_to_file(reinterpret_cast<void*>(base), size);
  if (allocation.file < 0) return fail(cudaErrorMemoryAllocation);
  *handle = as<cudaIpcMemHandle_t>(MemoryHandle{getpid(), allocation.file, size});
  return cudaSuccess;
}

SIMCUDA_API cudaError_t cudaIpcOpenMemHandle(void** pointer, cudaIpcMemHandle_t handle, unsigned) {
  if (SIMCUDA_CALL) return fail(cudaErrorMapBufferObjectFailed);
  const auto shared = as<MemoryHandle>(handle);
  if (shared.process == getpid()) return fail(cudaErrorDeviceUninitialized);
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/fd/%d", shared.process, shared.file);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return fail(cudaErrorInvalidResourceHandle);
  void* const mapped = mmap(nullptr, shared.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return fail(cudaErrorMapBufferObjectFailed);
  SIMCUDA_LOCK;
  state().allocations[reinterpret_cast<std::uintptr_t>(mapped)] = {shared.bytes, current_device(), Kind::kMapped};  // the owner is charged for it
  *pointer = mapped;
  return cudaSuccess;
}

SIMCUDA_API cudaError_t cudaIpcCloseMemHandle(void* pointer) {
  (void)SIMCUDA_CALL;
  SIMCUDA_LOCK;
  const auto at = state().allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (at == state().allocations.end() || at->second.kind != Kind::kMapped) return fail(cudaErrorInvalidValue);
  synchronize(at->second.device);
  munmap(pointer, at->second.bytes);
  state().allocations.erase(at);
  return cudaSuccess;
}

// Each process has a clock of its own: an event is opened as one that has passed, so its owner waits for it first.
SIMCUDA_API cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t* handle, cudaEvent_t event) {
  (void)SIMCUDA_CALL;
  if ((event_of(event).flags & cudaEventInterprocess) == 0) return fail(cudaErrorInvalidResourceHandle);
  *handle = as<cudaIpcEventHandle_t>(event_of(event).flags);
  return fail(synchronize(event_of(event)));
}
SIMCUDA_API cudaError_t cudaIpcOpenEventHandle(cudaEvent_t* event, cudaIpcEventHandle_t handle) {
  (void)SIMCUDA_CALL;
  *event = reinterpret_cast<cudaEvent_t>(new Event(as<unsigned>(handle)));
  return cudaSuccess;
}
