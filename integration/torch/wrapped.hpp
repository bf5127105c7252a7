// Wrapped tensors: a subclass around one plain tensor (DTensor around this rank's part). Its operators run on the plain one and are recorded there, so
// what autograd saves of it can be dropped and made again as that; the wrapper is put around it when backward asks.
//
// It is the one place where Python may run when a tensor is saved: the subclass lives there, and so does the Unwrapper. Threads: any; it takes the GIL.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace reprise::engine {

class Wrapper {
 public:
  virtual ~Wrapper() = default;
  virtual at::Tensor wrap(const at::Tensor& inner) const = 0;
};

struct Unwrapped {
  at::Tensor inner;  // undefined: nothing that can be unwrapped
  std::shared_ptr<const Wrapper> wrapper;
};

using Unwrapper = Unwrapped (*)(const at::Tensor& tensor);
void set_unwrapper(Unwrapper unwrapper);
Unwrapped unwrap(const at::Tensor& tensor);  // costs one test for a plain tensor

}  // namespace reprise::engine
