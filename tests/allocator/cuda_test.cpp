// CudaDevices beyond what every Device must do: faults of the driver, fences of busy streams, what the counts say, and what is a block's own.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "allocator/caching_allocator.hpp"
#include "tests/allocator/cuda_support.hpp"

namespace reprise {
namespace {

struct Way {
  const char* name;
  std::unique_ptr<cuda::CudaDevice> (*make)();
};
const Way kMapped{"Mapped", &make_mapped_device}, kMalloc{"Malloc", &make_malloc_device};

class OnCuda : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (cuda_is_missing()) GTEST_SKIP() << "skipped: there is no CUDA driver";
    device_ = GetParam().make();
    ASSERT_NE(device_, nullptr);
  }
  std::unique_ptr<cuda::CudaDevice> device_;
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
  using Calls = std::uint64_t(const char*);
  using Enqueue = void(void*, void (*)(void*), void*, void (*)(void*));
  Fail* fail_ = driver_function<Fail>("simcuda_fail");
  Used* used_ = driver_function<Used>("simcuda_used");
  Calls* calls_ = driver_function<Calls>("simcuda_calls");
  Enqueue* enqueue_ = driver_function<Enqueue>("simcuda_enqueue");

  void keep_busy(StreamId stream) {
    enqueue_(
        device_->handle_of(stream), [](void*) {}, nullptr, [](void*) {});
  }
};

class OnMappedCuda : public OnSimulatedCuda {};
class OnMallocCuda : public OnSimulatedCuda {};

std::string name_of(const ::testing::TestParamInfo<Way>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Ways, OnCuda, ::testing::Values(kMapped, kMalloc), name_of);
INSTANTIATE_TEST_SUITE_P(Ways, OnSimulatedCuda, ::testing::Values(kMapped, kMalloc), name_of);
INSTANTIATE_TEST_SUITE_P(Ways, OnMappedCuda, ::testing::Values(kMapped), name_of);
INSTANTIATE_TEST_SUITE_P(Ways, OnMallocCuda, ::testing::Values(kMalloc), name_of);

TEST_P(OnMappedCuda, AFailingCallChangesNothing) {
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

TEST_P(OnSimulatedCuda, AFenceOfABusyStreamHasNotPassed) {
  keep_busy(1);
  const auto busy = device_->record_fence(1), idle = device_->record_fence(2);
  ASSERT_TRUE(busy && idle);
  EXPECT_FALSE(device_->passed(*busy));
  device_->wait(*busy);
  EXPECT_TRUE(device_->passed(*busy));
  EXPECT_TRUE(device_->passed(*idle));
}

TEST_P(OnSimulatedCuda, AnEventThatCannotBeHadIsNoFence) {
  fail_("cuEventCreate", 1);
  EXPECT_FALSE(device_->record_fence(1).has_value());
  fail_("cuEventRecord", 1);
  EXPECT_FALSE(device_->record_fence(1).has_value());
  const auto fence = device_->record_fence(1);
  ASSERT_TRUE(fence.has_value());
  device_->wait(*fence);
  EXPECT_TRUE(device_->passed(*fence));
}

TEST_P(OnSimulatedCuda, EventsAreUsedAgain) {
  for (int i = 0; i < 3; i++) device_->wait(*device_->record_fence(1));
  const std::uint64_t made = calls_("cuEventCreate");
  for (int i = 0; i < 100; i++) device_->wait(*device_->record_fence(1));
  EXPECT_EQ(calls_("cuEventCreate"), made);
}

TEST_P(OnSimulatedCuda, MemoryOfABusyStreamGoesToNobodyElse) {
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

TEST_P(OnCuda, CountsWhatIsCommitted) {
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
  const bool by_block = device_->block_bytes() != 0;
  EXPECT_EQ(device_->committed().driver_gave, 1u);
  EXPECT_EQ(device_->committed().driver_took, by_block ? 0u : 1u);
  device_->reset_peak();
  device_->reset_totals();
  EXPECT_EQ(device_->committed().peak, 0u);
  EXPECT_EQ(device_->committed().given, 0u);
  EXPECT_EQ(device_->committed().driver_gave, 0u);
}

TEST_P(OnCuda, StretchesTileWhatIsReserved) {
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

TEST_P(OnCuda, AStepThatRepeatsIsServedFromItsRegion) {
  const std::size_t page = device_->page_bytes();
  CachingAllocator allocator(*device_, {.rounding_bytes = 512, .caches = false, .arena_bytes = device_->block_bytes()});
  void* const parameters = allocator.allocate(page);
  const auto step = std::make_shared<const PlannedStep>(
      std::vector<PlannedPiece>{{.bytes = 3 * page, .offset = 0, .dies_before = 2}, {.bytes = page, .offset = 3 * page}, {.bytes = 2 * page, .offset = 0}});
  std::vector<void*> places;
  for (std::uint64_t round = 1; round <= 3; round++) {
    ASSERT_TRUE(allocator.begin_planned(step));
    void* const first = allocator.allocate(3 * page);
    void* const second = allocator.allocate(page);
    allocator.deallocate(first);
    void* const third = allocator.allocate(2 * page);
    EXPECT_EQ(third, first);
    EXPECT_EQ(static_cast<std::byte*>(second), static_cast<std::byte*>(first) + 3 * page);
    EXPECT_EQ(allocator.statistics().planned_hits, 3 * round);
    EXPECT_EQ(device_->committed().now, 5 * page);
    places.push_back(first);
    allocator.deallocate(second);
    allocator.deallocate(third);
    allocator.end_planned(step.get());
    EXPECT_EQ(allocator.check_invariants(), "");
  }
  EXPECT_EQ(places, std::vector<void*>(3, places.front()));
  allocator.deallocate(parameters);
}

TEST_P(OnMallocCuda, TheBlockIsHeldFromTheStartAndGivenBackAtTheEnd) {
  const std::uint64_t with_ours = used_(0);
  std::string why;
  auto other = cuda::MallocDevice::make(*cuda::Gpu::find(0, why), 9 * cuda::MallocDevice::kPageBytes + 5, why);
  ASSERT_NE(other, nullptr) << why;
  EXPECT_EQ(other->block_bytes(), 9 * other->page_bytes());
  EXPECT_EQ(other->committed().now, 0u);
  EXPECT_EQ(used_(0), with_ours + other->block_bytes());
  other.reset();
  EXPECT_EQ(used_(0), with_ours);
}

TEST_P(OnMallocCuda, ARefusedBlockSaysWhy) {
  std::string why;
  const auto gpu = cuda::Gpu::find(0, why);
  const std::size_t page = cuda::MallocDevice::kPageBytes;
  fail_("cuMemAlloc_v2", 1);
  EXPECT_EQ(cuda::MallocDevice::make(*gpu, 3 * page, why), nullptr);
  EXPECT_EQ(why, "device 0 refuses one block of 6291456 bytes");
  EXPECT_EQ(cuda::MallocDevice::make(*gpu, 2 * gpu->capacity_bytes, why), nullptr);
  EXPECT_EQ(cuda::MallocDevice::make(*gpu, page - 1, why), nullptr);
  EXPECT_EQ(why, "device 0 refuses one block of 0 bytes");
}

TEST_P(OnMallocCuda, CommittingAsksNoDriver) {
  const std::uint64_t held = used_(0), taken = calls_("cuMemAlloc_v2"), mapped = calls_("cuMemCreate") + calls_("cuMemUnmap");
  CachingAllocator allocator(*device_, {.rounding_bytes = 512, .arena_bytes = device_->block_bytes()});
  for (int round = 0; round < 3; round++) {
    std::vector<void*> pieces;
    for (const std::size_t bytes : {700u, 5u << 20, 64u << 20, 3u << 20}) pieces.push_back(allocator.allocate(bytes));
    for (void* const piece : pieces) allocator.deallocate(piece);
    EXPECT_GT(device_->committed().now, 0u);
    allocator.trim();
    EXPECT_EQ(device_->committed().now, 0u);
    EXPECT_EQ(allocator.check_invariants(), "");
  }
  EXPECT_EQ(used_(0), held);
  EXPECT_EQ(calls_("cuMemAlloc_v2"), taken);
  EXPECT_EQ(calls_("cuMemCreate") + calls_("cuMemUnmap"), mapped);
}

TEST_P(OnMallocCuda, ReservedRangesFillTheBlockAndNoMore) {
  const std::size_t page = device_->page_bytes(), block = device_->block_bytes();
  std::byte* const first = device_->reserve(3 * page);
  std::byte* const second = device_->reserve(block - 3 * page);
  ASSERT_TRUE(first != nullptr && second != nullptr);
  EXPECT_EQ(device_->reserve(page), nullptr);
  device_->release(first, 3 * page);
  EXPECT_EQ(device_->reserve(4 * page), nullptr);
  EXPECT_EQ(device_->reserve(page), first);
  EXPECT_EQ(device_->reserve(2 * page), first + page);
  device_->release(second, block - 3 * page);
  EXPECT_EQ(device_->reserve(block - 3 * page), second);
}

// What MappedDevice's unmapping would wait for: a page that is given back and committed again may not meet the work of the stream that had it.
TEST_P(OnMallocCuda, ABusyStreamIsWaitedForBeforeItsPagesGoOn) {
  const std::size_t page = device_->page_bytes();
  CachingAllocator allocator(*device_, {.rounding_bytes = 512, .cap_bytes = 4 * page, .arena_bytes = device_->block_bytes()});
  void* const first = allocator.allocate(4 * page, 1);
  keep_busy(1);
  const auto busy = device_->record_fence(1);
  allocator.deallocate(first);
  EXPECT_FALSE(device_->passed(*busy));
  void* const other = allocator.allocate(4 * page, 2);  // only by giving the pages of stream 1 back
  EXPECT_NE(other, nullptr);
  EXPECT_TRUE(device_->passed(*busy));
  allocator.deallocate(other);
  EXPECT_EQ(allocator.check_invariants(), "");
}

}  // namespace
}  // namespace reprise
