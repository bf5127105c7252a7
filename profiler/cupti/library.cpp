#include "profiler/cupti/library.hpp"

#include <cuda.h>
#include <dlfcn.h>

namespace reprise::cupti {

namespace {

struct Opened {
  Cupti table;
  std::string why;  // empty: all is there

  void add_missing(const std::string& library, const char* function) {
    why += why.empty() ? library + " lacks " : std::string(", ");
    why += function;
  }

  Opened() {
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr) {  // cuptiSubscribe() of 13.2 then calls itself until the stack is used up
      why = "there is no CUDA driver (libcuda.so.1)";
      return;
    }
    const std::string name = "libcupti.so." + std::to_string(CUDA_VERSION / 1000);  // records have the form that the header of this major version says
    void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);              // never closed
    if (library == nullptr) {
      why = "there is no " + name;
      return;
    }
#define REPRISE_CUPTI_LOOK_UP(function)                                                   \
  table.function = reinterpret_cast<decltype(table.function)>(dlsym(library, #function)); \
  if (table.function == nullptr) add_missing(name, #function);
    REPRISE_CUPTI_FUNCTIONS(REPRISE_CUPTI_LOOK_UP)
#undef REPRISE_CUPTI_LOOK_UP
  }
};

const Opened& opened() {
  static const Opened* const once = new Opened;
  return *once;
}

}  // namespace

const Cupti* Cupti::open() { return opened().why.empty() ? &opened().table : nullptr; }

const std::string& Cupti::why() { return opened().why; }

std::string Cupti::words(CUptiResult result) const {
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  return text == nullptr ? "error " + std::to_string(static_cast<int>(result)) : text;
}

}  // namespace reprise::cupti
