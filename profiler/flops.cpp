#include "profiler/flops.hpp"

#include <functional>
#include <numeric>
#include <unordered_map>

namespace reprise {
namespace {

using Sizes = std::vector<int64_t>;

int64_t product(const Sizes& s, size_t from = 0) {
  return std::accumulate(s.begin() + static_cast<std::ptrdiff_t>(std::min(from, s.size())), s.end(), int64_t{1}, std::multiplies<>());
}

const Sizes& shape(const TraceOp& op, size_t i) {
  static const Sizes none;
  return i < op.input_shapes.size() ? op.input_shapes[i].sizes : none;
}

int64_t matrix(const Sizes& a, const Sizes& b) { return a.size() == 2 && b.size() == 2 ? 2 * a[0] * a[1] * b[1] : 0; }
int64_t batched(const Sizes& a, const Sizes& b) { return a.size() == 3 && b.size() == 3 ? 2 * a[0] * a[1] * a[2] * b[2] : 0; }
int64_t linear(const Sizes& x, const Sizes& w) {
  if (x.empty() || w.empty()) return 0;
  return w.size() == 1 ? 2 * product(x) : 2 * product(x) * w[0];
}

// Forward FLOPs of a convolution between `small` (weight) and the side it slides over: the output, or the input when transposed.
int64_t convolution(const Sizes& in, const Sizes& weight, const Sizes& out, bool transposed) {
  if (weight.size() < 3) return 0;
  return 2 * product(transposed ? in : out) * product(weight, 1);
}

const Sizes& output(const TraceOp& op) {
  static const Sizes none;
  return op.output_shapes.empty() ? none : op.output_shapes[0].sizes;
}

// stride, padding, dilation, transposed, output padding, groups: 4 d + 2 integers, or 6 when the lists have one entry for all dimensions.
int64_t general_convolution(const TraceOp& op) {
  const size_t d = shape(op, 1).size() < 3 ? 0 : shape(op, 1).size() - 2;
  const size_t flag = op.integers.size() >= 4 * d + 2 ? 3 * d : 3;
  const bool transposed = flag < op.integers.size() && op.integers[flag] != 0;
  return convolution(shape(op, 0), shape(op, 1), output(op), transposed);
}

int64_t convolution_backward(const TraceOp& op) {
  const Sizes &grad = shape(op, 0), &in = shape(op, 1), &weight = shape(op, 2);
  const size_t d = weight.size() < 3 ? 0 : weight.size() - 2, n = op.integers.size();
  if (n < d + 5) return 0;
  const int64_t wanted = (op.integers[n - 3] != 0) + (op.integers[n - 2] != 0);  // output mask: input, weight, bias
  const bool transposed = op.integers[n - 5 - d] != 0;                           // … transposed, output padding (d), groups, mask (3)
  return wanted * convolution(in, weight, grad, transposed);
}

int64_t plain_convolution(const TraceOp& op) { return convolution(shape(op, 0), shape(op, 1), output(op), false); }
int64_t transposed_convolution(const TraceOp& op) { return convolution(shape(op, 0), shape(op, 1), output(op), true); }

struct Formula {
  int64_t (*flops)(const TraceOp&);
  size_t first, second;  // its two factors, as inputs; equal where it is a backward itself
};

const std::unordered_map<std::string, Formula>& formulas() {
  static const std::unordered_map<std::string, Formula> table = {
      {"mm", {[](const TraceOp& o) { return matrix(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"addmm", {[](const TraceOp& o) { return matrix(shape(o, 1), shape(o, 2)); }, 1, 2}},
      {"_addmm_activation", {[](const TraceOp& o) { return matrix(shape(o, 1), shape(o, 2)); }, 1, 2}},
      {"_scaled_mm", {[](const TraceOp& o) { return matrix(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"bmm", {[](const TraceOp& o) { return batched(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"baddbmm", {[](const TraceOp& o) { return batched(shape(o, 1), shape(o, 2)); }, 1, 2}},
      {"dot", {[](const TraceOp& o) { return 2 * product(shape(o, 0)); }, 0, 1}},
      {"vdot", {[](const TraceOp& o) { return 2 * product(shape(o, 0)); }, 0, 1}},
      {"mv", {[](const TraceOp& o) { return 2 * product(shape(o, 0)); }, 0, 1}},
      {"addmv", {[](const TraceOp& o) { return 2 * product(shape(o, 1)); }, 1, 2}},
      {"linear", {[](const TraceOp& o) { return linear(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"mkldnn_linear", {[](const TraceOp& o) { return linear(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"_linear_pointwise", {[](const TraceOp& o) { return linear(shape(o, 0), shape(o, 1)); }, 0, 1}},
      {"convolution", {general_convolution, 0, 1}},
      {"_convolution", {general_convolution, 0, 1}},
      {"convolution_overrideable", {general_convolution, 0, 1}},
      {"convolution_backward", {convolution_backward, 0, 0}},
      {"convolution_backward_overrideable", {convolution_backward, 0, 0}},
      {"mkldnn_convolution", {plain_convolution, 0, 1}},
      {"cudnn_convolution", {plain_convolution, 0, 1}},
      {"cudnn_convolution_relu", {plain_convolution, 0, 1}},
      {"miopen_convolution", {plain_convolution, 0, 1}},
      {"thnn_conv2d", {plain_convolution, 0, 1}},
      {"_slow_conv2d_forward", {plain_convolution, 0, 1}},
      {"slow_conv3d_forward", {plain_convolution, 0, 1}},
      {"_conv_depthwise2d", {plain_convolution, 0, 1}},
      {"conv_depthwise3d", {plain_convolution, 0, 1}},
      {"slow_conv_dilated2d", {plain_convolution, 0, 1}},
      {"slow_conv_dilated3d", {plain_convolution, 0, 1}},
      {"cudnn_convolution_transpose", {transposed_convolution, 0, 1}},
      {"slow_conv_transpose2d", {transposed_convolution, 0, 1}},
      {"slow_conv_transpose3d", {transposed_convolution, 0, 1}}};
  return table;
}

std::string base_name(const TraceOp& op) {
  const size_t colon = op.name.rfind(':');
  return colon == std::string::npos ? op.name : op.name.substr(colon + 1);
}

const Formula* formula(std::string name) {
  if (name.size() > 1 && name.back() == '_') name.pop_back();  // in-place forms
  const auto it = formulas().find(name);
  return it == formulas().end() ? nullptr : &it->second;
}

bool wanted(const TraceOp& op, size_t input) { return op.input_gradients.empty() || (input < op.input_gradients.size() && op.input_gradients[input] != 0); }

}  // namespace

int64_t operator_flops(const TraceOp& op) {
  const std::string name = base_name(op);
  if (is_attention(name)) return attention_flops(op);
  if (is_recurrent(name)) return recurrent_flops(op);
  const Formula* const known = formula(name);
  return known ? known->flops(op) : 0;
}

int64_t gradient_flops(const TraceOp& op) {
  const std::string name = base_name(op);
  if (name.find("_backward") != std::string::npos) return 0;  // of a backward: not counted
  if (is_attention(name)) return attention_gradient_flops(op);
  if (is_recurrent(name)) {
    bool any = op.input_gradients.empty();
    for (uint8_t asked : op.input_gradients) any |= asked != 0;
    return any ? 2 * recurrent_flops(op) : 0;
  }
  const Formula* const known = formula(name);
  return known ? known->flops(op) * (int64_t{wanted(op, known->first)} + int64_t{wanted(op, known->second)}) : 0;
}

}  // namespace reprise
