// NvtxRegions, heard by a tool of our own (tests/simcuda/nvtx_tool.cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "allocator/cuda/nvtx_regions.hpp"

namespace reprise::cuda {
namespace {

using Found = std::map<std::uint64_t, std::uint64_t>;

class CudaNvtx : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(tool_, nullptr) << dlerror(); }
  void TearDown() override { EXPECT_EQ(count("nvtx_tool_mistakes"), 0u); }

  std::uint64_t count(const char* name) const { return reinterpret_cast<std::uint64_t (*)()>(dlsym(tool_, name))(); }
  Found all(const char* name) const {
    std::array<std::uint64_t, 16> firsts{}, sizes{};
    using Show = std::size_t(std::uint64_t*, std::uint64_t*, std::size_t);
    const std::size_t there = reinterpret_cast<Show*>(dlsym(tool_, name))(firsts.data(), sizes.data(), firsts.size());
    Found found;
    for (std::size_t i = 0; i < there; i++) found[firsts[i] - base_] = sizes[i];
    return found;
  }
  const std::byte* at(std::size_t offset) const { return memory_.data() + offset; }
  std::unique_ptr<NvtxRegions> make() {
    setenv("NVTX_INJECTION64_PATH", REPRISE_NVTX_TOOL, 1);  // NVTX reads it at its first call in this process
    std::string why;
    auto made = NvtxRegions::make(memory_.data(), memory_.size(), "an arena", why);
    EXPECT_NE(made, nullptr) << why;
    return made;
  }

  void* const tool_ = dlopen(REPRISE_NVTX_TOOL, RTLD_NOW);
  std::array<std::byte, 4096> memory_{};
  const std::uint64_t base_ = reinterpret_cast<std::uintptr_t>(memory_.data());
};

TEST_F(CudaNvtx, TheToolKnowsExactlyWhatWasAddedAndNotRemoved) {
  const auto regions = make();
  EXPECT_EQ(all("nvtx_tool_heaps"), (Found{{0, 4096}}));
  EXPECT_EQ(all("nvtx_tool_regions"), Found{});
  regions->add(at(0), 100);
  regions->add(at(512), 512);
  EXPECT_EQ(all("nvtx_tool_regions"), (Found{{0, 100}, {512, 512}}));
  regions->remove(at(0));
  EXPECT_EQ(all("nvtx_tool_regions"), (Found{{512, 512}}));
  regions->add(at(0), 512);
  regions->add(at(1024), 3072);
  EXPECT_EQ(all("nvtx_tool_regions"), (Found{{0, 512}, {512, 512}, {1024, 3072}}));
  for (const std::size_t offset : {0u, 512u, 1024u}) regions->remove(at(offset));
  EXPECT_EQ(all("nvtx_tool_regions"), Found{});
}

TEST_F(CudaNvtx, AHeapEndsWithItsObjectAndOthersStay) {
  auto first = make();
  std::array<std::byte, 64> elsewhere{};
  std::string why;
  const auto second = NvtxRegions::make(elsewhere.data(), elsewhere.size(), "another", why);
  ASSERT_NE(second, nullptr) << why;
  first->add(at(64), 64);
  second->add(elsewhere.data(), 8);
  first.reset();
  const std::uint64_t other = reinterpret_cast<std::uintptr_t>(elsewhere.data()) - base_;
  EXPECT_EQ(all("nvtx_tool_heaps"), (Found{{other, 64}}));
  EXPECT_EQ(all("nvtx_tool_regions"), (Found{{other, 8}}));
}

}  // namespace
}  // namespace reprise::cuda
