#include "integration/torch/origin.hpp"

#include <torch/csrc/autograd/variable.h>

namespace reprise::engine {
namespace {

// Torch 2.15 drops "Backward0" from what it says; earlier ones name the node.
template <class Node>
std::string name_in_words(const Node& node) {
  if constexpr (requires { node.forward_op_name(); }) return node.forward_op_name();
  else return node.name();
}

std::string made_by(const std::string& node, uint32_t output) { return ", which is output " + std::to_string(output) + " of " + node + ","; }

// A view of something that was written to gets a new node when it is asked for its history, and this is its name.
const char* regenerated_view() {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 15
  return "AsStrided";
#else
  return "AsStridedBackward0";
#endif
}

}  // namespace

Origin Origin::of(const at::Tensor& saved) {
  Origin origin;
  const auto* const meta = torch::autograd::impl::get_autograd_meta(saved);
  if (!meta || (!meta->is_view_ && !meta->grad_fn_)) return origin;  // a leaf
  origin.view_ = meta->is_view_ && torch::autograd::impl::get_view_autograd_meta(saved) != nullptr;
  if (meta->is_view_ && (!saved.requires_grad() || saved.is_leaf())) return Origin();
  origin.node_ = WeakNode(meta->is_view_ ? saved.grad_fn() : meta->grad_fn_);  // a view's may have to be made
  origin.variable_ = c10::weak_intrusive_ptr<c10::TensorImpl>(saved.getIntrusivePtr());
  origin.output_ = static_cast<uint32_t>(saved.output_nr());
  return origin;
}

// A node names itself for its own outputs; an input says what its history is now.
std::string Origin::text() const {
  const auto node = node_.lock();
  if (!node) return "";
  const bool own_output = node == torch::autograd::get_current_node();
  if (const auto alive = variable_.lock(); alive && !own_output) {
    const at::Tensor tensor(alive);
    if (const auto& now = tensor.grad_fn()) return made_by(name_in_words(*now), static_cast<uint32_t>(tensor.output_nr()));
  }
  if (view_ && !own_output) return made_by(regenerated_view(), 0);
  return made_by(name_in_words(*node), output_);
}

}  // namespace reprise::engine
