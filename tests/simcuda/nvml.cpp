// libnvidia-ml: torch 2.15 calls it through a null pointer on the first expandable segment if it cannot be loaded, so it must be there.
#include <cstdio>

#include "model.hpp"

using namespace simcuda;

namespace {
constexpr int kInvalidArgument = 2, kNotSupported = 3;
int device_at(unsigned index, void** device) {
  if (index >= state().devices.size()) return kInvalidArgument;
  *device = &state().devices[index];
  return 0;
}
int none(unsigned* count) {
  *count = 0;
  return 0;
}
}  // namespace

SIMCUDA_API int nvmlInit_v2() { return 0; }
SIMCUDA_API int nvmlShutdown() { return 0; }
SIMCUDA_API const char* nvmlErrorString(int) { return "NVML is simulated"; }
SIMCUDA_API int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(state().devices.size());
  return 0;
}
SIMCUDA_API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) { return device_at(index, device); }
SIMCUDA_API int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  unsigned domain = 0, bus = 0;
  return std::sscanf(id, "%x:%x", &domain, &bus) == 2 && bus > 0 ? device_at(bus - 1, device) : kInvalidArgument;
}
SIMCUDA_API int nvmlDeviceGetComputeRunningProcesses(void*, unsigned* count, void*) { return none(count); }
SIMCUDA_API int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, void*) { return none(count); }
SIMCUDA_API int nvmlDeviceGetGpuFabricInfoV(void*, void*) { return kNotSupported; }
SIMCUDA_API int nvmlDeviceGetNvLinkRemoteDeviceType(void*, unsigned, int*) { return kNotSupported; }
SIMCUDA_API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void*, unsigned, void*) { return kNotSupported; }
SIMCUDA_API int nvmlSystemGetCudaDriverVersion(int* version) {
  *version = 13000;
  return 0;
}
SIMCUDA_API int nvmlSystemGetCudaDriverVersion_v2(int* version) { return nvmlSystemGetCudaDriverVersion(version); }
