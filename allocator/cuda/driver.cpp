#include "allocator/cuda/driver.hpp"

#include <dlfcn.h>

namespace reprise::cuda {

namespace {

#define REPRISE_CUDA_TEXT(name) #name
#define REPRISE_CUDA_EXPANDED_TEXT(name) REPRISE_CUDA_TEXT(name)

struct Opened {
  Driver driver;
  std::string why_missing;  // empty: all is there

  void add_missing(const char* function) {
    why_missing += why_missing.empty() ? "the CUDA driver lacks " : ", ";
    why_missing += function;
  }

  Opened() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // never closed: the table lives as long as the process
    if (library == nullptr) {
      why_missing = "there is no CUDA driver (libcuda.so.1)";
      return;
    }
#define REPRISE_CUDA_LOOK_UP(name) driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(library, REPRISE_CUDA_EXPANDED_TEXT(name)));
#define REPRISE_CUDA_LOOK_UP_NEEDED(name) \
  REPRISE_CUDA_LOOK_UP(name)              \
  if (driver.name == nullptr) add_missing(REPRISE_CUDA_EXPANDED_TEXT(name));
#define REPRISE_CUDA_LOOK_UP_MAPPING(name) \
  REPRISE_CUDA_LOOK_UP(name)               \
  driver.maps_memory = driver.maps_memory && driver.name != nullptr;
    REPRISE_CUDA_FUNCTIONS(REPRISE_CUDA_LOOK_UP_NEEDED)
    REPRISE_CUDA_MAPPING_FUNCTIONS(REPRISE_CUDA_LOOK_UP_MAPPING)
#undef REPRISE_CUDA_LOOK_UP_MAPPING
#undef REPRISE_CUDA_LOOK_UP_NEEDED
#undef REPRISE_CUDA_LOOK_UP
    if (why_missing.empty() && driver.cuInit(0) != CUDA_SUCCESS) why_missing = "the CUDA driver does not start (cuInit)";
  }
};

const Opened& opened() {
  static const Opened* const once = new Opened;  // tensors may be freed after static destructors have run
  return *once;
}

}  // namespace

const Driver* Driver::get() { return opened().why_missing.empty() ? &opened().driver : nullptr; }

const std::string& Driver::why_missing() { return opened().why_missing; }

}  // namespace reprise::cuda
