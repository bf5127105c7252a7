// libcublasLt: one algorithm, no workspace; the clock runs.
#include <cstdlib>

#include "model.hpp"

using namespace simcuda;

namespace {

constexpr std::size_t kDescriptorBytes = 256;

struct Layout {
  std::uint64_t rows, columns;
};
struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  std::uint64_t algorithm[8];
  std::size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};

int make(void** object) {
  *object = std::calloc(1, kDescriptorBytes);
  return 0;
}
int destroy(void* object) {
  std::free(object);
  return 0;
}

}  // namespace

SIMCUDA_API std::size_t cublasLtGetVersion() { return 130100; }
SIMCUDA_API int cublasLtCreate(void** handle) { return make(handle); }
SIMCUDA_API int cublasLtDestroy(void* handle) { return destroy(handle); }
SIMCUDA_API int cublasLtMatmulDescCreate(void** descriptor, int, int) { return make(descriptor); }
SIMCUDA_API int cublasLtMatmulDescDestroy(void* descriptor) { return destroy(descriptor); }
SIMCUDA_API int cublasLtMatmulDescSetAttribute(void*, int, const void*, std::size_t) { return 0; }
SIMCUDA_API int cublasLtMatmulPreferenceCreate(void** preference) { return make(preference); }
SIMCUDA_API int cublasLtMatmulPreferenceDestroy(void* preference) { return destroy(preference); }
SIMCUDA_API int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, std::size_t) { return 0; }
SIMCUDA_API int cublasLtMatrixLayoutCreate(Layout** layout, int, std::uint64_t rows, std::uint64_t columns, std::int64_t) {
  *layout = new Layout{rows, columns};
  return 0;
}
SIMCUDA_API int cublasLtMatrixLayoutDestroy(Layout* layout) {
  delete layout;
  return 0;
}
SIMCUDA_API int cublasLtMatrixLayoutSetAttribute(void*, int, const void*, std::size_t) { return 0; }
SIMCUDA_API int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, Heuristic* results, int* count) {
  *results = {};
  *count = 1;
  return 0;
}
SIMCUDA_API int cublasLtMatmul(void*, void*, const void*, const void*, Layout* a, const void*, Layout*, const void*, const void*, Layout*, void*, Layout* d,
                               const void*, void*, std::size_t, void* stream) {
  const std::uint64_t inner = a->rows == d->rows ? a->columns : a->rows;
  const double operations = 2.0 * static_cast<double>(d->rows) * static_cast<double>(d->columns) * static_cast<double>(inner);
  enqueue(stream, kKernelCost / 4 + copy_cost(operations, state().operations_per_nanosecond));
  return 0;
}
