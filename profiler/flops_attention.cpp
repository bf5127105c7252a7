#include <unordered_set>

#include "profiler/flops.hpp"

namespace reprise {
namespace {

bool backward(const std::string& name) { return name.find("_backward") != std::string::npos; }

// The flash, efficient and cudnn kernels proper take (batch, length, heads, width); everything called scaled_dot_product (batch, heads, length, width).
bool length_first(const std::string& name) { return name.find("scaled_dot_product") == std::string::npos; }

// pairs: 2 · b · h · q · k; the widths of a query and of a value. Shapes that do not fit: all 0.
struct Attention {
  int64_t pairs = 0, width = 0, value_width = 0;
};

Attention attention(const TraceOp& op, size_t first) {
  if (op.input_shapes.size() < first + 3) return {};
  const auto &q = op.input_shapes[first].sizes, &k = op.input_shapes[first + 1].sizes, &v = op.input_shapes[first + 2].sizes;
  if (q.size() != 4 || k.size() != 4 || v.size() != 4) return {};
  const size_t heads = length_first(op.name) ? 2 : 1, length = 3 - heads;
  return {2 * q[0] * q[heads] * q[length] * k[length], q[3], v[3]};
}

}  // namespace

bool is_attention(const std::string& name) {
  static const std::unordered_set<std::string> kernels = {"_scaled_dot_product_flash_attention",
                                                          "_scaled_dot_product_flash_attention_backward",
                                                          "_scaled_dot_product_flash_attention_for_cpu",
                                                          "_scaled_dot_product_flash_attention_for_cpu_backward",
                                                          "_scaled_dot_product_efficient_attention",
                                                          "_scaled_dot_product_efficient_attention_backward",
                                                          "_scaled_dot_product_cudnn_attention",
                                                          "_scaled_dot_product_cudnn_attention_backward",
                                                          "_scaled_dot_product_fused_attention_overrideable",
                                                          "_scaled_dot_product_fused_attention_overrideable_backward",
                                                          "_scaled_dot_product_attention_math_for_mps",
                                                          "scaled_dot_product_attention",
                                                          "_flash_attention_forward",
                                                          "_flash_attention_backward",
                                                          "_efficient_attention_forward",
                                                          "_efficient_attention_backward",
                                                          "_cudnn_attention_forward",
                                                          "_cudnn_attention_backward"};
  return kernels.count(name) > 0;
}

int64_t attention_flops(const TraceOp& op) {
  const bool of_backward = backward(op.name);
  const Attention a = attention(op, of_backward ? 1 : 0);  // backward kernels take the output's gradient first
  return of_backward ? a.pairs * (3 * a.width + 2 * a.value_width) : a.pairs * (a.width + a.value_width);
}

int64_t attention_gradient_flops(const TraceOp& op) {
  const auto asked = [&](size_t i) { return op.input_gradients.empty() || (i < op.input_gradients.size() && op.input_gradients[i] != 0); };
  const Attention a = attention(op, 0);
  const int64_t scores = asked(0) || asked(1) ? a.value_width : 0;
  return a.pairs * (scores + (asked(0) ? a.width : 0) + (asked(1) ? a.width : 0) + (asked(2) ? a.value_width : 0));
}

bool is_recurrent(const std::string& name) {
  static const std::unordered_set<std::string> kernels = {"mkldnn_rnn_layer",
                                                          "mkldnn_rnn_layer_backward",
                                                          "_cudnn_rnn",
                                                          "_cudnn_rnn_backward",
                                                          "miopen_rnn",
                                                          "miopen_rnn_backward",
                                                          "_lstm_mps",
                                                          "lstm",
                                                          "gru",
                                                          "rnn_tanh",
                                                          "rnn_relu"};
  return kernels.count(name) > 0;
}

int64_t recurrent_flops(const TraceOp& op) {
  if (op.input_shapes.empty()) return 0;
  const auto& x = op.input_shapes[0].sizes;  // (length, batch, width), (batch, length, width) or (length, width)
  if (x.size() < 2) return 0;
  const int64_t rows = x.size() == 3 ? x[0] * x[1] : x[0];
  int64_t elements = 0;
  for (size_t i = 1; i < op.input_shapes.size(); i++) {
    const auto& w = op.input_shapes[i].sizes;
    if (w.size() == 2 && !(x.size() == 2 && i < 2)) elements += w[0] * w[1];
  }
  return (backward(op.name) ? 4 : 2) * rows * elements;
}

}  // namespace reprise
