#include "policy/blocks.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/policy/tracer.hpp"

namespace reprise {
namespace {

using testing::Tracer;

std::vector<Block> blocks_of(const Trace& t) { return find_blocks(Profile::from_trace(t)); }

std::set<int32_t> families(const std::vector<Block>& blocks) {
  std::set<int32_t> out;
  for (const Block& b : blocks) out.insert(b.family);
  return out;
}

// torchvision's resnet50 by operators: a stem, stages of 3, 4, 6, 3 bottlenecks, the first of each with a projection.
Trace resnet50() {
  Tracer t;
  const int32_t w = t.outside(64);
  const auto normalised = [&](int32_t x, int64_t bytes, double seconds = 1) {
    return t.op("native_batch_norm", {t.op("convolution", {x, w}, bytes, seconds), w}, bytes);
  };
  int32_t x = t.op("max_pool2d", {t.in_place("relu_", normalised(t.outside(64), 6400), {})}, 1600);
  int64_t width = 1600;
  for (int32_t units : {3, 4, 6, 3}) {
    for (int32_t u = 0; u < units; u++) {
      const int32_t a = t.in_place("relu_", normalised(x, width), {}), b = t.in_place("relu_", normalised(a, width, 2.25), {});  // 3 × 3
      const int32_t c = normalised(b, 4 * width), side = u == 0 ? normalised(x, 4 * width) : x;
      x = t.in_place("relu_", t.in_place("add_", c, {side}), {});
    }
    width /= 2;
  }
  t.op("addmm", {t.op("mean", {x}, 64), w}, 64);
  t.forward_end();
  return t.finish();
}

TEST(Blocks, TransformerHasOnePerLayer) {
  for (int32_t n : {2, 4, 12}) {
    const auto blocks = blocks_of(testing::transformer(n, 4096));
    ASSERT_EQ(blocks.size(), static_cast<size_t>(n));
    EXPECT_EQ(families(blocks).size(), 1U);
    EXPECT_EQ(blocks[0], (Block{1, 10, blocks[0].family}));  // after the embedding, ten Ops each
  }
}

TEST(Blocks, ChainHasOnePerUnit) {
  const auto blocks = blocks_of(testing::chain(64, 4096));
  ASSERT_EQ(blocks.size(), 64U);
  for (int32_t i = 0; i < 64; i++) EXPECT_EQ(blocks[static_cast<size_t>(i)].first_op, 2 * i);
}

TEST(Blocks, ResNet50HasSixteenInTwoFamilies) {
  const auto blocks = blocks_of(resnet50());
  EXPECT_EQ(blocks.size(), 16U);
  EXPECT_EQ(families(blocks).size(), 2U);
}

TEST(Blocks, UnrolledRecurrenceHasOnePerStep) {
  Tracer t;
  const int32_t w = t.outside(64);
  int32_t h = t.outside(64);
  for (int i = 0; i < 9; i++) h = t.op("tanh", {t.op("add", {t.op("addmm", {t.outside(64), w}, 640), t.op("addmm", {h, w}, 640)}, 640)}, 640);
  EXPECT_EQ(blocks_of(t.finish()).size(), 9U);
}

TEST(Blocks, EncoderAndDecoderAreTwoFamilies) {
  Tracer t;
  const int32_t w = t.outside(64);
  int32_t x = t.outside(64);
  for (int i = 0; i < 4; i++) x = t.op("add", {x, t.op("gelu", {t.op("addmm", {t.op("norm", {x}, 640), w}, 2560)}, 640)}, 640);
  const int32_t memory = x;
  for (int i = 0; i < 3; i++) x = t.op("add", {x, t.op("cross", {t.op("norm", {x}, 640), memory, t.op("addmm", {memory, w}, 640)}, 640)}, 640);
  const auto blocks = blocks_of(t.finish());
  EXPECT_EQ(blocks.size(), 7U);
  EXPECT_EQ(families(blocks).size(), 2U);
}

TEST(Blocks, ParallelEqualOpsAreNoBlocks) {
  Tracer t;
  const int32_t w = t.outside(64), x = t.op("embedding", {w}, 640);
  t.op("cat", {t.op("addmm", {x, w}, 640), t.op("addmm", {x, w}, 640), t.op("addmm", {x, w}, 640)}, 1920);
  EXPECT_TRUE(blocks_of(t.finish()).empty());
}

}  // namespace
}  // namespace reprise
