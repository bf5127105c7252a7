// libcudnn: version checks pass, everything else is a stub. Programs set torch.backends.cudnn.enabled = False.
#include "model.hpp"

SIMCUDA_API const char* cudnnGetErrorString(int) { return "cuDNN is not simulated"; }
SIMCUDA_API std::size_t cudnnGetVersion() { return 92600; }
SIMCUDA_API std::size_t cudnnGetCudartVersion() { return 13000; }
SIMCUDA_API int cudnnGetProperty(int type, int* value) {
  *value = type == 0 ? 9 : 0;  // the major version
  return 0;
}
