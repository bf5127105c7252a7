#include "integration/torch/wrapped.hpp"

#include <atomic>

namespace reprise::engine {
namespace {
std::atomic<Unwrapper> the_unwrapper{nullptr};
}

void set_unwrapper(Unwrapper unwrapper) { the_unwrapper = unwrapper; }

Unwrapped unwrap(const at::Tensor& tensor) {
  const Unwrapper unwrapper = tensor.unsafeGetTensorImpl()->is_python_dispatch() ? the_unwrapper.load() : nullptr;
  return unwrapper ? unwrapper(tensor) : Unwrapped{};
}

}  // namespace reprise::engine
