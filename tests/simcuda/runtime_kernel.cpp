// libcudart: kernels are registered and launched, and do nothing but take time. torch.cuda._sleep takes the time it is told to.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "runtime.hpp"

using namespace simcuda;

namespace {

constexpr double kBytesPerThread = 16;

struct Symbol {
  std::size_t bytes;
  void* memory;
};
// Both are filled by static constructors of other libraries, before this file's own would run.
std::unordered_map<const void*, std::string_view>& kernels() {
  static auto* const all = new std::unordered_map<const void*, std::string_view>;
  return *all;
}
std::unordered_map<const void*, Symbol>& symbols() {
  static auto* const all = new std::unordered_map<const void*, Symbol>;
  return *all;
}

struct Configuration {
  dim3 grid, block;
  std::size_t shared_bytes;
  void* stream;
};
std::vector<Configuration>& configurations() {
  static thread_local std::vector<Configuration> pushed;
  return pushed;
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, void** arguments, void* stream) {
  const std::uint64_t per_block = std::uint64_t{block.x} * block.y * block.z;
  const double threads = static_cast<double>(per_block) * grid.x * grid.y * grid.z;
  if (threads == 0 || per_block > 1024) return fail(cudaErrorInvalidConfiguration);
  SIMCUDA_LOCK;
  state().devices[static_cast<std::size_t>(current_device())].launches++;
  const auto known = kernels().find(kernel);
  const bool spins = known != kernels().end() && known->second.find("spin_kernel") != std::string_view::npos;
  enqueue(stream,
          spins ? *static_cast<std::int64_t*>(arguments[0]) : kKernelCost / 4 + copy_cost(threads * kBytesPerThread, state().device_bytes_per_nanosecond));
  return cudaSuccess;
}

}  // namespace

// ---- what the compiler's start-up code calls: no vendor header declares these ----
extern "C" {
SIMCUDA_SHARED void** __cudaRegisterFatBinary(void*) {
  static void* handle[1];
  return handle;
}
SIMCUDA_SHARED void __cudaRegisterFatBinaryEnd(void**) {}
SIMCUDA_SHARED void __cudaUnregisterFatBinary(void**) {}
SIMCUDA_SHARED void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  SIMCUDA_LOCK;
  kernels()[host] = name;
}
SIMCUDA_SHARED void __cudaRegisterVar(void**, char* host, char*, const char*, int, std::size_t bytes, int, int) {
  SIMCUDA_LOCK;
  symbols()[host] = {bytes, nullptr};
}
SIMCUDA_SHARED void __cudaRegisterManagedVar(void**, void**, char*, const char*, int, std::size_t, int, int) {}
SIMCUDA_SHARED char __cudaInitModule(void**) { return 1; }
SIMCUDA_SHARED unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared_bytes, void* stream) {
  configurations().push_back({grid, block, shared_bytes, stream});
  return 0;
}
SIMCUDA_SHARED cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared_bytes, void* stream) {
  const Configuration last = configurations().back();
  configurations().pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *static_cast<void**>(stream) = last.stream;
  return cudaSuccess;
}
SIMCUDA_SHARED cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
SIMCUDA_SHARED cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, std::size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, stream);
}
}

SIMCUDA_API cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  SIMCUDA_LOCK;
  const auto found = symbols().find(symbol);
  if (found == symbols().end()) return fail(cudaErrorInvalidSymbol);
  if (found->second.memory == nullptr) found->second.memory = std::calloc(1, std::max<std::size_t>(found->second.bytes, 16));
  *pointer = found->second.memory;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, std::size_t bytes, std::size_t offset, cudaMemcpyKind) {
  void* pointer;
  if (const cudaError_t error = cudaGetSymbolAddress(&pointer, symbol)) return error;
  std::memcpy(static_cast<std::byte*>(pointer) + offset, from, bytes);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, std::size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, stream);
}
SIMCUDA_API cudaError_t cudaLaunchCooperativeKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, std::size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, stream);
}
SIMCUDA_API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* configuration, const void* kernel, void** arguments) {
  return launch(kernel, configuration->gridDim, configuration->blockDim, arguments, configuration->stream);
}
SIMCUDA_API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->ptxVersion = attributes->binaryVersion = state().capability;
  attributes->maxDynamicSharedSizeBytes = 166912;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
SIMCUDA_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int block_threads, std::size_t) {
  *blocks = block_threads > 0 ? std::max(1, 2048 / block_threads) : 1;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* kernel, int block_threads, std::size_t shared_bytes,
                                                                               unsigned) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, block_threads, shared_bytes);
}
