// libcuda.so.1: contexts, attributes, events and the look-up of functions. Virtual memory is in driver_memory.cpp.
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "model.hpp"

using namespace simcuda;

namespace {

char contexts[64];  // a context is the address of its device's byte

int attribute(CUdevice_attribute which) {
  switch (static_cast<int>(which)) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return state().capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return state().capability % 10;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 108;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED: return state().maps_memory ? 1 : 0;
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED: return 1;
    default: return 0;
  }
}

CUresult result(int code) { return static_cast<CUresult>(code); }

// Our own function of that name, or nullptr; what another library of that name has is not ours.
void* own_function(const std::string& name) {
  Dl_info here{}, there{};
  if (dladdr(contexts, &here) == 0) return nullptr;
  static void* const self = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  void* const found = self == nullptr ? nullptr : dlsym(self, name.c_str());
  return found != nullptr && dladdr(found, &there) != 0 && there.dli_fbase == here.dli_fbase ? found : nullptr;
}

}  // namespace

namespace simcuda {

// The newest version first, as the driver's own versioned look-up does.
void* driver_function(const char* name) {
  for (const char* suffix : {"_v2", ""})
    if (void* const found = own_function(std::string(name) + suffix)) return found;
  return nullptr;
}

}  // namespace simcuda

SIMCUDA_API CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
SIMCUDA_API CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDeviceGetCount(int* count) {
  *count = static_cast<int>(state().devices.size());
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (ordinal < 0 || ordinal >= static_cast<int>(state().devices.size())) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDeviceGetName(char* name, int length, CUdevice) {
  std::snprintf(name, static_cast<std::size_t>(length), "%s", state().name.c_str());
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDeviceTotalMem(std::size_t* bytes, CUdevice device) {
  *bytes = state().devices[static_cast<std::size_t>(device)].total;
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
  *value = attribute(which);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS ? "no error" : error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "simulated driver error";
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuGetErrorName(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS ? "CUDA_SUCCESS" : error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuMemAlloc(CUdeviceptr* pointer, std::size_t bytes) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  return result(allocate(current_device(), bytes, reinterpret_cast<void**>(pointer)));
}
SIMCUDA_API CUresult cuMemFree(CUdeviceptr pointer) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  return result(deallocate(reinterpret_cast<void*>(pointer)));
}
SIMCUDA_API CUresult cuMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  SIMCUDA_LOCK;
  const Device& device = state().devices[static_cast<std::size_t>(current_device())];
  *free_bytes = device.shown - std::min(device.shown, device.used);
  *total_bytes = device.shown;
  return CUDA_SUCCESS;
}

// ---- contexts: one per device, always there ----
SIMCUDA_API CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  *context = reinterpret_cast<CUcontext>(&contexts[device]);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
SIMCUDA_API CUresult cuCtxGetCurrent(CUcontext* context) { return cuDevicePrimaryCtxRetain(context, current_device()); }
SIMCUDA_API CUresult cuCtxSetCurrent(CUcontext context) {
  if (context != nullptr) current_device() = static_cast<int>(reinterpret_cast<char*>(context) - contexts);
  return CUDA_SUCCESS;
}
static std::vector<int>& pushed_devices() {
  static thread_local std::vector<int> devices;
  return devices;
}
SIMCUDA_API CUresult cuCtxPushCurrent(CUcontext context) {
  pushed_devices().push_back(current_device());
  return cuCtxSetCurrent(context);
}
SIMCUDA_API CUresult cuCtxPopCurrent(CUcontext* context) {
  if (pushed_devices().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context != nullptr) cuCtxGetCurrent(context);
  current_device() = pushed_devices().back();
  pushed_devices().pop_back();
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuCtxGetDevice(CUdevice* device) {
  *device = current_device();
  return CUDA_SUCCESS;
}

// ---- pinned host memory: kernels of every device may work in it ----
SIMCUDA_API CUresult cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  SIMCUDA_LOCK;
  *pointer = std::aligned_alloc(kPageBytes, (bytes + kPageBytes - 1) / kPageBytes * kPageBytes);
  if (*pointer == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  state().allocations[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes, current_device(), Kind::kHost};
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuMemFreeHost(void* pointer) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  synchronize(current_device());
  state().allocations.erase(reinterpret_cast<std::uintptr_t>(pointer));
  std::free(pointer);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuCtxSynchronize() {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  synchronize(current_device());
  return CUDA_SUCCESS;
}

// ---- events and streams ----
SIMCUDA_API CUresult cuEventCreate(CUevent* event, unsigned flags) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  *event = reinterpret_cast<CUevent>(new Event(flags));
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuEventDestroy(CUevent event) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  delete reinterpret_cast<Event*>(event);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuEventRecord(CUevent event, CUstream stream) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  return result(record(*reinterpret_cast<Event*>(event), stream_of(stream)));
}
SIMCUDA_API CUresult cuEventQuery(CUevent event) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  return result(query(*reinterpret_cast<Event*>(event)));
}
SIMCUDA_API CUresult cuEventSynchronize(CUevent event) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  return result(synchronize(*reinterpret_cast<Event*>(event)));
}
SIMCUDA_API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  if (SIMCUDA_CALL) return CUDA_ERROR_OUT_OF_MEMORY;
  *stream = reinterpret_cast<CUstream>(&make_stream(flags, 0));
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  *status = stream_of(stream).capture != nullptr ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode*) { return CUDA_SUCCESS; }
SIMCUDA_API CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr pointer, cuuint32_t value, unsigned) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  enqueue(
      stream, kQueryCost, [=] { *reinterpret_cast<volatile cuuint32_t*>(pointer) = value; }, WorkKind::kOther);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, std::size_t bytes, CUstream stream) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  enqueue(
      stream, copy_cost(static_cast<double>(bytes), kHostBytesPerNanosecond),
      [=] { std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes); }, WorkKind::kCopy);
  return CUDA_SUCCESS;
}
SIMCUDA_API CUresult cuMemsetD32Async(CUdeviceptr pointer, unsigned value, std::size_t count, CUstream stream) {
  if (SIMCUDA_CALL) return CUDA_ERROR_UNKNOWN;
  enqueue(
      stream, copy_cost(static_cast<double>(count) * 4, state().device_bytes_per_nanosecond),
      [=] {
        auto* const words = reinterpret_cast<unsigned*>(pointer);
        for (std::size_t i = 0; i < count; i++) words[i] = value;
      },
      WorkKind::kFill);
  return CUDA_SUCCESS;
}
