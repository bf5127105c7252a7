// CudaDevice beyond what every Device must do: faults of the driver, fences of busy streams, and what the counts say.
#include <gtest/gtest.h>

#include "allocator/caching_allocator.hpp"
#include "tests/allocator/cuda_support.hpp"

namespace reprise {
namespace {

class OnCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_ == nullptr) GTEST_SKIP() << "skipped: there is no CUDA driver";
  }
  std::unique_ptr<cuda::CudaDevice> device_ = make_cuda_device();
};

// Only the simulator can break its calls: on a real driver these tests are skipped.
class OnSimulatedCuda : public OnCuda {
 protected:
  void SetUp() override {
    OnCuda::SetUp();
    if (device_ != nullptr && fail_ == nullptr) GTEST_SKIP() << "skipped: this driver is not the simulated one";
  }
  using Fail = void(const char*, std::uint64_t);
  using Used = std::uint64_t(int);
  using Enqueue = void(void*, void (*)(void*), void*, void (*)(void*));
  Fail* fail_ = driver_function<Fail>("simcuda_fail");
  Used* used_ = driver_function<Used>("simcuda_used");
  Enqueue* enqueue_ = driver_function<Enqueue>("simcuda_enqueue");

  void keep_busy(StreamId stream) {
    enqueue_(
        device_->handle_of(stream), [](void*) {}, nullptr, [](void*) {});
  }
};

TEST_F(OnSimulatedCuda, AFailingCallChangesNothing) {
  const std::size_t page = device_->page_bytes();
  std::byte* const base = device_->reserve(8 * page);
  const std::uint64_t before = used_(0);
  for (const char* call : {"cuMemCreate", "cuMemMap", "cuMemSetAccess"}) {
    fail_(call, call == std::string("cuMemSetAccess") ? 1 : 3);
    EXPECT_FALSE(device_->commit(base, 4 * page)) << call;
    EXPECT_EQ(used_(0), before) << call;
    EXPECT_EQ(device_->committed().now, 0u) << call;
  }
  EXPECT_TRUE(device_->commit(base, 4 * page));
  EXPECT_EQ(used_(0), before + 4 * page);
  fail_("cuMemUnmap", 1);
  EXPECT_FALSE(device_->decommit(base, 4 * page));
  EXPECT_EQ(device_->committed().now, 4 * page);
  EXPECT_TRUE(device_->decommit(base, 4 * page));
  EXPECT_EQ(used_(0), before);
  device_->release(base, 8 * page);
}

TEST_F(OnSimulatedCuda, AFenceOfABusyStreamHasNotPassed) {
  keep_busy(1);
  const auto busy = device_->record_fence(1), idle = device_->record_fence(2);
  ASSERT_TRUE(busy && idle);
  EXPECT_FALSE(device_->passed(*busy));
  device_->wait(*busy);
  EXPECT_TRUE(device_->passed(*busy));
  EXPECT_TRUE(device_->passed(*idle));
}

TEST_F(OnSimulatedCuda, AnEventThatCannotBeHadIsNoFence) {
  fail_("cuEventCreate", 1);
  EXPECT_FALSE(device_->record_fence(1).has_value());
  fail_("cuEventRecord", 1);
  EXPECT_FALSE(device_->record_fence(1).has_value());
  const auto fence = device_->record_fence(1);
  ASSERT_TRUE(fence.has_value());
  device_->wait(*fence);
  EXPECT_TRUE(device_->passed(*fence));
}

TEST_F(OnSimulatedCuda, EventsAreUsedAgain) {
  using Calls = std::uint64_t(const char*);
  Calls* const calls = driver_function<Calls>("simcuda_calls");
  for (int i = 0; i < 3; i++) device_->wait(*device_->record_fence(1));
  const std::uint64_t made = calls("cuEventCreate");
  for (int i = 0; i < 100; i++) device_->wait(*device_->record_fence(1));
  EXPECT_EQ(calls("cuEventCreate"), made);
}

TEST_F(OnSimulatedCuda, MemoryOfABusyStreamGoesToNobodyElse) {
  CachingAllocator allocator(*device_, {.rounding_bytes = 512});
  void* const first = allocator.allocate(8 << 20, 1);
  keep_busy(1);
  allocator.deallocate(first);
  void* const other = allocator.allocate(8 << 20, 2);
  EXPECT_NE(other, first);
  void* const own = allocator.allocate(8 << 20, 1);
  EXPECT_EQ(own, first);
  allocator.deallocate(own);
  allocator.deallocate(other);
  EXPECT_EQ(allocator.check_invariants(), "");
}

TEST_F(OnCuda, CountsWhatIsCommitted) {
  const std::size_t page = device_->page_bytes();
  CachingAllocator allocator(*device_, {.rounding_bytes = 512});
  void* const piece = allocator.allocate(3 * page);
  EXPECT_EQ(device_->committed().now, 3 * page);
  allocator.deallocate(piece);
  allocator.trim();
  EXPECT_EQ(device_->committed().now, 0u);
  EXPECT_EQ(device_->committed().peak, 3 * page);
  EXPECT_EQ(device_->committed().given, 3 * page);
  EXPECT_EQ(device_->committed().taken_back, 3 * page);
  device_->reset_peak();
  device_->reset_totals();
  EXPECT_EQ(device_->committed().peak, 0u);
  EXPECT_EQ(device_->committed().given, 0u);
}

TEST_F(OnCuda, StretchesTileWhatIsReserved) {
  const std::size_t page = device_->page_bytes();
  CachingAllocator allocator(*device_, {.rounding_bytes = 512});
  void* const small = allocator.allocate(700);
  void* const large = allocator.allocate(5 * page, 1);
  void* const last = allocator.allocate(1000, 1);
  allocator.deallocate(large);
  allocator.set_cap(3 * page);  // gives pages back from within
  std::size_t sum = 0, live = 0;
  for (const Stretch& stretch : allocator.stretches()) {
    sum += stretch.bytes;
    live += stretch.requested;
  }
  EXPECT_EQ(sum, allocator.statistics().reserved_bytes);
  EXPECT_EQ(sum, device_->committed().now);
  EXPECT_EQ(live, 1700u);
  EXPECT_TRUE(allocator.owns(small) && allocator.owns(last) && !allocator.owns(&sum));
  allocator.deallocate(small);
  allocator.deallocate(last);
}

}  // namespace
}  // namespace reprise
