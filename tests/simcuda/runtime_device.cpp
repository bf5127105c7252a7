// libcudart: devices, errors and the way to the driver. The vendor's header checks every signature.
#include <cstdio>
#include <cstring>

#include "runtime.hpp"

using namespace simcuda;

namespace simcuda {

cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}

}  // namespace simcuda

namespace {

bool exists(int device) { return device >= 0 && device < static_cast<int>(state().devices.size()); }

int attribute(cudaDeviceAttr which) {
  switch (static_cast<int>(which)) {
    case cudaDevAttrComputeCapabilityMajor: return state().capability / 10;
    case cudaDevAttrComputeCapabilityMinor: return state().capability % 10;
    case cudaDevAttrMultiProcessorCount: return 108;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 166912;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 167936;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrCooperativeLaunch: return 1;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
    case cudaDevAttrL2CacheSize: return 40 << 20;
    default: return 0;
  }
}

}  // namespace

SIMCUDA_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!exists(device)) return fail(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "%s", state().name.c_str());
  std::memset(&properties->uuid, 0x40 + device, sizeof properties->uuid);
  properties->totalGlobalMem = state().devices[static_cast<std::size_t>(device)].shown;
  properties->major = state().capability / 10;
  properties->minor = state().capability % 10;
  properties->sharedMemPerBlock = 49152;
  properties->sharedMemPerBlockOptin = 166912;
  properties->sharedMemPerMultiprocessor = 167936;
  properties->reservedSharedMemPerBlock = 1024;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->warpSize = 32;
  properties->memPitch = 2147483647;
  properties->maxThreadsPerBlock = properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 2147483647;
  properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
  properties->totalConstMem = 65536;
  properties->textureAlignment = 512;
  properties->texturePitchAlignment = 32;
  properties->multiProcessorCount = 108;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxBlocksPerMultiProcessor = 32;
  properties->memoryBusWidth = 5120;
  properties->l2CacheSize = 40 << 20;
  properties->asyncEngineCount = 3;
  properties->canMapHostMemory = properties->concurrentKernels = properties->unifiedAddressing = properties->cooperativeLaunch = 1;
  properties->streamPrioritiesSupported = properties->hostRegisterSupported = properties->canUseHostPointerForRegisteredMem = 1;
  properties->pciBusID = device + 1;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = attribute(which);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(state().devices.size());
  return *count > 0 ? cudaSuccess : fail(cudaErrorNoDevice);
}
SIMCUDA_API cudaError_t cudaGetDevice(int* device) {
  (void)SIMCUDA_CALL;
  *device = current_device();
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaSetDevice(int device) {
  if (!exists(device)) return fail(cudaErrorInvalidDevice);
  current_device() = device;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error();
  last_error() = cudaSuccess;
  return error;
}
SIMCUDA_API cudaError_t cudaPeekAtLastError() { return last_error(); }
SIMCUDA_API const char* cudaGetErrorString(cudaError_t error) {
  switch (static_cast<int>(error)) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorNotSupported: return "operation not supported by the simulated device";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: return "error of the simulated device";
  }
}
SIMCUDA_API const char* cudaGetErrorName(cudaError_t error) {
  switch (static_cast<int>(error)) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
    default: return "cudaErrorUnknown";
  }
}
SIMCUDA_API cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", static_cast<unsigned>(device + 1));
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
SIMCUDA_API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceSynchronize() {
  (void)SIMCUDA_CALL;
  synchronize(current_device());
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaProfilerStart() { return cudaSuccess; }
SIMCUDA_API cudaError_t cudaProfilerStop() { return cudaSuccess; }

SIMCUDA_API cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                                         cudaDriverEntryPointQueryResult* outcome) {
  *function = driver_function(name);
  if (outcome != nullptr) *outcome = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
