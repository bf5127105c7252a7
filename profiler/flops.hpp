// Exact floating-point operations of one operator call, from its shapes. A multiply-add counts two; what is not a contraction counts none.
//
// Conventions (those of the published figures): causal and padded attention count in full; a bias, a softmax and a norm count none.
// Fl1  convolution: 2 · |output| · |weight| / channels out     (transposed: 2 · |input| · |weight| / channels in)
// Fl2  convolution backward: the forward's once for the input's gradient, once for the weight's, by output mask
// Fl3  attention: 2 · b · h · q · k · (d + d_v); its backward, which forms the scores again: 2 · b · h · q · k · (3 d + 2 d_v)
// Fl4  recurrent layer in one kernel: 2 · steps · batch · (elements of all its matrices); backward twice that
// What runs before autograd saves its first tensor (a frozen first part), and what a custom autograd.Function does in backward, is not seen by a Pass.
// Failure: an operator that is not known, or shapes that do not fit its formula, count 0.
#pragma once

#include <cstdint>
#include <string>

#include "profiler/trace.hpp"

namespace reprise {

int64_t operator_flops(const TraceOp& op);

// Of its backward, counted once each: the gradients that autograd asks for (TraceOp::input_gradients; all of them where those are not known).
// Fl5  a contraction: the forward's for each of its two factors    Fl6  attention: 2 · b · h · q · k · d_v for v's gradient; d_v for the scores' gradient and
// d for q's and for k's. Scores that are formed again are no useful work    Fl7  a recurrent layer: twice the forward's
int64_t gradient_flops(const TraceOp& op);

bool is_attention(const std::string& name);  // every scaled_dot_product and flash/efficient/cudnn attention kernel, backward too
int64_t attention_flops(const TraceOp& op);
int64_t attention_gradient_flops(const TraceOp& op);  // Fl6
int64_t recurrent_flops(const TraceOp& op);           // mkldnn_rnn_layer, _cudnn_rnn, lstm, gru, rnn_tanh, rnn_relu and their backward kernels
bool is_recurrent(const std::string& name);

}  // namespace reprise
