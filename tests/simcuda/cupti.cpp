// libcupti: records nothing. These two have an output that callers read without looking at the result.
#include "model.hpp"

SIMCUDA_API int cuptiGetResultString(int, const char** text) {
  *text = "CUPTI is not simulated";
  return 0;
}
SIMCUDA_API int cuptiGetVersion(unsigned* version) {
  *version = 130000;
  return 0;
}
