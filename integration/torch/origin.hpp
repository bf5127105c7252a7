// Origin: which node made a saved tensor, in the words of torch's version errors: ", which is output 0 of ExpBackward0,". Owns nothing.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/version.h>

#include <memory>
#include <string>

namespace reprise::engine {

class Origin {
 public:
  Origin() = default;
  static Origin of(const at::Tensor& saved);
  std::string text() const;  // for a tensor that was written to since; while its node runs. "" where it has no history

 private:
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 15
  using NodePointer = c10::intrusive_ptr<torch::autograd::Node>;
  using WeakNode = c10::weak_intrusive_ptr<torch::autograd::Node>;
#else
  using NodePointer = std::shared_ptr<torch::autograd::Node>;
  using WeakNode = std::weak_ptr<torch::autograd::Node>;
#endif
  // Weak: a strong reference to a node's own output would keep the node that keeps us. Others live as long as the node that saved them.
  WeakNode node_{NodePointer()};
  c10::weak_intrusive_ptr<c10::TensorImpl> variable_{c10::intrusive_ptr<c10::TensorImpl>()};
  uint32_t output_ = 0;
  bool view_ = false;
};

}  // namespace reprise::engine
