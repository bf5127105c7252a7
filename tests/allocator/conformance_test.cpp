// What every Device must do: D1 to D4 of device.hpp, and an allocator that works on it.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "allocator/caching_allocator.hpp"
#include "allocator/host/host_device.hpp"
#include "allocator/simulated/simulated_device.hpp"
#ifdef REPRISE_CUDA
#include "tests/allocator/cuda_support.hpp"
#endif

namespace reprise {
namespace {

struct Kind {
  const char* name;
  bool readable;  // its addresses are memory of this process
  std::unique_ptr<Device> (*make)();
};

const Kind kKinds[] = {
    {"Host", true, [] { return std::unique_ptr<Device>(std::make_unique<HostDevice>()); }},
    {"HostHugePages", true, [] { return std::unique_ptr<Device>(std::make_unique<HostDevice>(HostOptions{.huge_pages = true})); }},
    {"SimulatedSmallPages", false, [] { return std::unique_ptr<Device>(std::make_unique<SimulatedDevice>(std::size_t{1} << 32, 4096)); }},
    {"SimulatedLargePages", false, [] { return std::unique_ptr<Device>(std::make_unique<SimulatedDevice>(std::size_t{1} << 32)); }},
#ifdef REPRISE_CUDA
    {"CudaMapped", false, [] { return std::unique_ptr<Device>(make_mapped_device()); }},  // on a real one nobody may read its memory
    {"CudaMalloc", false, [] { return std::unique_ptr<Device>(make_malloc_device()); }},
#endif
};

class EveryDevice : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
#ifdef REPRISE_CUDA
    if (std::string(GetParam().name).starts_with("Cuda") && cuda_is_missing()) GTEST_SKIP() << "skipped: there is no CUDA driver";
#endif
    device_ = GetParam().make();
    ASSERT_NE(device_, nullptr);
  }
  std::unique_ptr<Device> device_;
};

TEST_P(EveryDevice, PageSizeIsAPowerOfTwo) {
  EXPECT_GT(device_->page_bytes(), 0u);
  EXPECT_EQ(device_->page_bytes() & (device_->page_bytes() - 1), 0u);
  EXPECT_GT(device_->capacity_bytes(), 0u);
}

TEST_P(EveryDevice, ReservesAlignedRangesThatDoNotOverlap) {
  const std::size_t bytes = 16 * device_->page_bytes();
  std::byte* const first = device_->reserve(bytes);
  std::byte* const second = device_->reserve(bytes);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % device_->page_bytes(), 0u);
  EXPECT_TRUE(first + bytes <= second || second + bytes <= first);
  device_->release(first, bytes);
  device_->release(second, bytes);
}

TEST_P(EveryDevice, CommittedPagesHoldWhatIsWritten) {
  const std::size_t page = device_->page_bytes();
  std::byte* const base = device_->reserve(16 * page);
  ASSERT_TRUE(device_->commit(base + page, 3 * page));
  if (GetParam().readable) {
    std::memset(base + page, 7, 3 * page);
    EXPECT_EQ(base[4 * page - 1], std::byte{7});
  }
  EXPECT_TRUE(device_->decommit(base + page, 3 * page));
  ASSERT_TRUE(device_->commit(base + page, 3 * page));
  if (GetParam().readable) std::memset(base + page, 8, 3 * page);
  device_->release(base, 16 * page);
}

TEST_P(EveryDevice, AFenceStaysPassed) {
  const auto fence = device_->record_fence(3);
  ASSERT_TRUE(fence.has_value());
  device_->wait(*fence);
  EXPECT_TRUE(device_->passed(*fence));
  EXPECT_TRUE(device_->passed(*fence));
}

TEST_P(EveryDevice, ServesAnAllocator) {
  CachingAllocator allocator(*device_);
  std::vector<void*> pointers;
  for (std::size_t bytes : {1u, 64u, 1000u, 1024u, 1025u, 5000u, 1u << 20}) {
    pointers.push_back(allocator.allocate(bytes));
    ASSERT_NE(pointers.back(), nullptr) << bytes;
    EXPECT_EQ(allocator.size_of(pointers.back()), bytes);
    if (GetParam().readable) std::memset(pointers.back(), 1, bytes);
  }
  EXPECT_EQ(allocator.check_invariants(), "");
  for (void* pointer : pointers) allocator.deallocate(pointer);
  allocator.trim();
  EXPECT_EQ(allocator.statistics().reserved_bytes, 0u);
  EXPECT_EQ(allocator.check_invariants(), "");
}

INSTANTIATE_TEST_SUITE_P(Devices, EveryDevice, ::testing::ValuesIn(kKinds), [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace reprise
