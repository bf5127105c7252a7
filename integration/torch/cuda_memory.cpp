#include "integration/torch/cuda_memory.hpp"

#include <c10/macros/Macros.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <atomic>
#include <cstdio>
#include <filesystem>

namespace reprise {

namespace {

std::atomic<CudaMemory*> memory{nullptr};

bool can_open(const char* library, int mode) {
  void* const found = dlopen(library, RTLD_LAZY | mode);
  if (found != nullptr) dlclose(found);
  return found != nullptr;
}

std::string beside_us(const char* library) {
  Dl_info here{};
  dladdr(reinterpret_cast<void*>(&can_open), &here);
  return std::filesystem::path(here.dli_fname).replace_filename(library);
}

}  // namespace

void open_cuda_memory() {
  if (memory.load() != nullptr || !can_open("libc10_cuda.so", RTLD_NOLOAD)) return;
  const std::string path = beside_us("libreprise_cuda.so");
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  using Open = CudaMemory*();
  Open* const open = library == nullptr ? nullptr : reinterpret_cast<Open*>(dlsym(library, "reprise_cuda_memory"));
  if (open != nullptr) {
    memory = open();
    return;
  }
  if (!can_open("libcuda.so.1", 0)) return;  // nothing is lost: there is no device
  const bool built = std::filesystem::exists(path);
  std::fprintf(stderr, "reprise: CUDA memory stays with torch's own allocator: %s\n",
               built ? dlerror() : "this build of reprise has none for torch 2." C10_STRINGIZE(TORCH_VERSION_MINOR));
}

CudaMemory* cuda_memory() { return memory.load(std::memory_order_acquire); }

}  // namespace reprise
