#include "profiler/flops.hpp"

#include <gtest/gtest.h>

#include "profiler/peak.hpp"
#include "profiler/utilization.hpp"

namespace reprise {
namespace {

int64_t flops(const std::string& name, std::vector<std::vector<int64_t>> in, std::vector<int64_t> out, std::vector<int64_t> integers = {}) {
  TraceOp o;
  o.name = "aten::" + name;
  for (auto& s : in) o.input_shapes.push_back({std::move(s), 4});
  o.output_shapes.push_back({std::move(out), 4});
  o.integers = std::move(integers);
  return operator_flops(o);
}

TEST(Flops, Matrices) {
  EXPECT_EQ(flops("mm", {{2, 3}, {3, 5}}, {2, 5}), 2 * 2 * 3 * 5);
  EXPECT_EQ(flops("addmm", {{5}, {2, 3}, {3, 5}}, {2, 5}), 2 * 2 * 3 * 5);
  EXPECT_EQ(flops("bmm", {{7, 2, 3}, {7, 3, 5}}, {7, 2, 5}), 7 * 2 * 2 * 3 * 5);
  EXPECT_EQ(flops("baddbmm", {{7, 2, 5}, {7, 2, 3}, {7, 3, 5}}, {7, 2, 5}), 7 * 2 * 2 * 3 * 5);
  EXPECT_EQ(flops("dot", {{9}, {9}}, {}), 18);
  EXPECT_EQ(flops("mv", {{4, 9}, {9}}, {4}), 72);
  EXPECT_EQ(flops("linear", {{2, 6, 3}, {5, 3}, {5}}, {2, 6, 5}), 2 * 12 * 3 * 5);
  EXPECT_EQ(flops("relu", {{9}}, {9}), 0);
}

TEST(Flops, Convolutions) {
  // 8 images, 6 -> 4 channels in 2 groups, 3 × 3, 10 × 10 out: each output element sums 3 channels × 9
  EXPECT_EQ(flops("convolution", {{8, 6, 10, 10}, {4, 3, 3, 3}}, {8, 4, 10, 10}, {1, 1, 1, 1, 1, 1, 0, 0, 0, 2}), 2 * 8 * 4 * 100 * 3 * 9);
  // transposed: each input element is spread over 5 channels × 4
  EXPECT_EQ(flops("convolution", {{8, 6, 10, 10}, {6, 5, 2, 2}}, {8, 5, 20, 20}, {2, 2, 0, 0, 1, 1, 1, 0, 0, 1}), 2 * 8 * 6 * 100 * 5 * 4);
  const int64_t forward = 2 * 8 * 4 * 100 * 3 * 9;
  const std::vector<int64_t> rest = {4, 1, 1, 1, 1, 1, 1, 0, 0, 0, 2};  // bias sizes, then as in the forward
  for (int64_t input : {0, 1}) {
    std::vector<int64_t> integers = rest;
    integers.insert(integers.end(), {input, 1, 1});
    EXPECT_EQ(flops("convolution_backward", {{8, 4, 10, 10}, {8, 6, 10, 10}, {4, 3, 3, 3}}, {8, 6, 10, 10}, integers), (1 + input) * forward);
  }
}

TEST(Flops, AttentionAndRecurrence) {
  const std::vector<int64_t> q = {2, 4, 10, 16}, k = {2, 4, 12, 16}, v = {2, 4, 12, 8};
  EXPECT_EQ(flops("_scaled_dot_product_flash_attention_for_cpu", {q, k, v}, {2, 4, 10, 8}), 2 * 2 * 4 * 10 * 12 * (16 + 8));
  EXPECT_EQ(flops("_scaled_dot_product_flash_attention_for_cpu_backward", {{2, 4, 10, 8}, q, k, v}, q), 2 * 2 * 4 * 10 * 12 * (3 * 16 + 2 * 8));
  EXPECT_EQ(flops("_flash_attention_forward", {{2, 10, 4, 16}, {2, 12, 4, 16}, {2, 12, 4, 8}}, {2, 10, 4, 8}), 2 * 2 * 4 * 10 * 12 * (16 + 8));
  EXPECT_EQ(flops("mkldnn_rnn_layer", {{5, 3, 7}, {32, 7}, {32, 8}, {32}, {32}, {1, 3, 8}, {1, 3, 8}}, {5, 3, 8}), 2 * 15 * 32 * (7 + 8));
}

int64_t gradients(const std::string& name, std::vector<std::vector<int64_t>> in, std::vector<int64_t> out, std::vector<uint8_t> asked,
                  std::vector<int64_t> integers = {}) {
  TraceOp o;
  o.name = "aten::" + name;
  for (auto& s : in) o.input_shapes.push_back({std::move(s), 4});
  o.output_shapes.push_back({std::move(out), 4});
  o.integers = std::move(integers);
  o.input_gradients = std::move(asked);
  return gradient_flops(o);
}

TEST(Flops, GradientsThatAreAskedFor) {
  const int64_t forward = 2 * 2 * 3 * 5;
  EXPECT_EQ(gradients("mm", {{2, 3}, {3, 5}}, {2, 5}, {}), 2 * forward);  // not known: both
  EXPECT_EQ(gradients("mm", {{2, 3}, {3, 5}}, {2, 5}, {0, 1}), forward);
  EXPECT_EQ(gradients("addmm", {{5}, {2, 3}, {3, 5}}, {2, 5}, {1, 0, 0}), 0);  // the bias alone
  EXPECT_EQ(gradients("addmm", {{5}, {2, 3}, {3, 5}}, {2, 5}, {0, 1, 1}), 2 * forward);
  const int64_t convolved = 2 * 8 * 4 * 100 * 3 * 9;
  EXPECT_EQ(gradients("convolution", {{8, 6, 10, 10}, {4, 3, 3, 3}}, {8, 4, 10, 10}, {0, 1}, {1, 1, 1, 1, 1, 1, 0, 0, 0, 2}), convolved);
  EXPECT_EQ(gradients("convolution_backward", {{8, 4, 10, 10}, {8, 6, 10, 10}, {4, 3, 3, 3}}, {8, 6, 10, 10}, {1, 1, 1}), 0);
  const std::vector<int64_t> q = {2, 4, 10, 16}, k = {2, 4, 12, 16}, v = {2, 4, 12, 8};
  const int64_t pairs = 2 * 2 * 4 * 10 * 12;
  EXPECT_EQ(gradients("_scaled_dot_product_flash_attention_for_cpu", {q, k, v}, {2, 4, 10, 8}, {1, 1, 1}), pairs * (8 + 16 + 16 + 8));
  EXPECT_EQ(gradients("_scaled_dot_product_flash_attention_for_cpu", {q, k, v}, {2, 4, 10, 8}, {0, 0, 1}), pairs * 8);
  EXPECT_EQ(gradients("relu", {{9}}, {9}, {1}), 0);
}

TEST(Utilization, CountsUsefulWorkAndWorkDone) {
  const MachinePeak peak{100, 1, "stated"};
  EXPECT_DOUBLE_EQ(model_flops_utilization(50, 2, peak), 0.25);
  EXPECT_DOUBLE_EQ(hardware_flops_utilization(50, 30, 2, peak), 0.4);
  EXPECT_THROW(model_flops_utilization(50, 0, peak), std::invalid_argument);
  EXPECT_THROW(hardware_flops_utilization(50, -1, 1, peak), std::invalid_argument);
}

TEST(Peak, IsMeasuredWithProvenance) {
  const MachinePeak p = measure_peak(1, 0.05);
  std::printf("%.1f GFLOP/s, %s\n", p.flops_per_second * 1e-9, p.provenance.c_str());
  EXPECT_GT(p.flops_per_second, 1e8);
  EXPECT_EQ(p.provenance.substr(0, 19), "measured: 1 thread ");
  EXPECT_THROW(measure_peak(0), std::invalid_argument);
}

}  // namespace
}  // namespace reprise
