// libcublas: checks that operands are device memory and lets the clock run. Types and enumerations are plain integers here: no vendor header is needed.
#include <cstdio>
#include <initializer_list>

#include "model.hpp"

using namespace simcuda;

namespace {

constexpr int kInvalid = 7;  // CUBLAS_STATUS_INVALID_VALUE

struct Handle {
  void* stream = nullptr;
  int math_mode = 0, pointer_mode = 0;
};

int check(std::initializer_list<const void*> operands) {
  for (const void* operand : operands) {
    std::uintptr_t base;
    Allocation allocation;
    if (find(operand, &base, &allocation)) continue;  // device memory, or pinned
    std::fprintf(stderr, "simcuda: cublas operand %p is no memory that a kernel may read\n", operand);
    return kInvalid;
  }
  return 0;
}

int multiply(const Handle& handle, int m, int n, int k, int batch, std::initializer_list<const void*> operands) {
  if (const int code = check(operands)) return code;
  enqueue(handle.stream, kKernelCost / 4 + copy_cost(2.0 * m * n * k * batch, state().operations_per_nanosecond));
  return 0;
}

}  // namespace

SIMCUDA_API int cublasCreate_v2(Handle** handle) {
  *handle = new Handle;
  return 0;
}
SIMCUDA_API int cublasDestroy_v2(Handle* handle) {
  delete handle;
  return 0;
}
SIMCUDA_API int cublasSetStream_v2(Handle* handle, void* stream) {
  handle->stream = stream;
  return 0;
}
SIMCUDA_API int cublasGetStream_v2(Handle* handle, void** stream) {
  *stream = handle->stream;
  return 0;
}
SIMCUDA_API int cublasSetWorkspace_v2(Handle*, void* workspace, std::size_t bytes) { return bytes > 0 ? check({workspace}) : 0; }
SIMCUDA_API int cublasSetMathMode(Handle* handle, int mode) {
  handle->math_mode = mode;
  return 0;
}
SIMCUDA_API int cublasGetMathMode(Handle* handle, int* mode) {
  *mode = handle->math_mode;
  return 0;
}
SIMCUDA_API int cublasSetPointerMode_v2(Handle* handle, int mode) {
  handle->pointer_mode = mode;
  return 0;
}
SIMCUDA_API int cublasGetPointerMode_v2(Handle* handle, int* mode) {
  *mode = handle->pointer_mode;
  return 0;
}
SIMCUDA_API int cublasSetSmCountTarget(Handle*, int) { return 0; }
SIMCUDA_API int cublasGetVersion_v2(Handle*, int* version) {
  *version = 130100;
  return 0;
}

#define SIMCUDA_GEMM(name)                                                                                                                              \
  SIMCUDA_API int name(Handle* handle, int, int, int m, int n, int k, const void*, const void* a, int, const void* b, int, const void*, void* c, int) { \
    return multiply(*handle, m, n, k, 1, {a, b, c});                                                                                                    \
  }
SIMCUDA_GEMM(cublasSgemm_v2)
SIMCUDA_GEMM(cublasDgemm_v2)

SIMCUDA_API int cublasGemmEx(Handle* handle, int, int, int m, int n, int k, const void*, const void* a, int, int, const void* b, int, int, const void*, void* c,
                             int, int, int, int) {
  return multiply(*handle, m, n, k, 1, {a, b, c});
}
SIMCUDA_API int cublasSgemmEx(Handle* handle, int, int, int m, int n, int k, const void*, const void* a, int, int, const void* b, int, int, const void*,
                              void* c, int, int) {
  return multiply(*handle, m, n, k, 1, {a, b, c});
}

#define SIMCUDA_GEMM_BATCHED(name)                                                                                                                            \
  SIMCUDA_API int name(Handle* handle, int, int, int m, int n, int k, const void*, const void* a, int, long long, const void* b, int, long long, const void*, \
                       void* c, int, long long, int batch) {                                                                                                  \
    return multiply(*handle, m, n, k, batch, {a, b, c});                                                                                                      \
  }
SIMCUDA_GEMM_BATCHED(cublasSgemmStridedBatched)
SIMCUDA_GEMM_BATCHED(cublasDgemmStridedBatched)

SIMCUDA_API int cublasGemmStridedBatchedEx(Handle* handle, int, int, int m, int n, int k, const void*, const void* a, int, int, long long, const void* b, int,
                                           int, long long, const void*, void* c, int, int, long long, int batch, int, int) {
  return multiply(*handle, m, n, k, batch, {a, b, c});
}
SIMCUDA_API int cublasSgemv_v2(Handle* handle, int, int m, int n, const void*, const void* a, int, const void* x, int, const void*, void* y, int) {
  return multiply(*handle, m, n, 1, 1, {a, x, y});
}
SIMCUDA_API int cublasDotEx(Handle* handle, int n, const void* x, int, int, const void* y, int, int, void*, int, int) {
  return multiply(*handle, n, 1, 1, 1, {x, y});
}
SIMCUDA_API int cublasSdot_v2(Handle* handle, int n, const void* x, int, const void* y, int, void*) { return multiply(*handle, n, 1, 1, 1, {x, y}); }
