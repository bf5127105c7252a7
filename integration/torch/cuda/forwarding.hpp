// Everything that torch asks of its CUDA allocator, passed on to the one found before us. What we answer ourselves is overridden in cuda_allocator.hpp;
// what one minor version of torch has and another has not is in minor_NN.hpp. Nothing is decided here.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace reprise::cuda {

namespace torch_allocator = c10::cuda::CUDACachingAllocator;
using Pool = c10::MempoolId_t;

class Forwarding : public torch_allocator::CUDAAllocator {
 public:
  explicit Forwarding(CUDAAllocator& native) : native_(native) {}

  void copy_data(void* to, const void* from, std::size_t bytes) const override { native_.copy_data(to, from, bytes); }
  void init(int devices) override { native_.init(devices); }
  bool initialized() override { return native_.initialized(); }
  std::vector<torch_allocator::StreamSegmentSize> getExpandableSegmentSizes(c10::DeviceIndex device) override {
    return native_.getExpandableSegmentSizes(device);
  }
  void enable(bool value) override { native_.enable(value); }
  bool isEnabled() const override { return native_.isEnabled(); }
  void releasePool(c10::DeviceIndex device, Pool pool) override { native_.releasePool(device, pool); }
  int getPoolUseCount(c10::DeviceIndex device, Pool pool) override { return native_.getPoolUseCount(device, pool); }
  void createOrIncrefPool(c10::DeviceIndex device, Pool pool, std::shared_ptr<CUDAAllocator> allocator) override {
    native_.createOrIncrefPool(device, pool, std::move(allocator));
  }
  void setUseOnOOM(c10::DeviceIndex device, Pool pool, bool use) override { native_.setUseOnOOM(device, pool, use); }
  void setNoSplit(c10::DeviceIndex device, Pool pool) override { native_.setNoSplit(device, pool); }
  bool checkPoolLiveAllocations(c10::DeviceIndex device, Pool pool, const std::unordered_set<void*>& expected) override {
    return native_.checkPoolLiveAllocations(device, pool, expected);
  }
  std::shared_ptr<void> getIpcDevPtr(std::string handle) override { return native_.getIpcDevPtr(std::move(handle)); }
  bool isHistoryEnabled() override { return native_.isHistoryEnabled(); }
  void recordAnnotation(const std::vector<std::pair<std::string, std::string>>& text) override { native_.recordAnnotation(text); }
  void pushCompileContext(std::string& text) override { native_.pushCompileContext(text); }
  void popCompileContext() override { native_.popCompileContext(); }
  void setUserMetadata(const std::string& text) override { native_.setUserMetadata(text); }
  std::string getUserMetadata() override { return native_.getUserMetadata(); }
  void attachAllocatorTraceTracker(c10::CachingDeviceAllocator::AllocatorTraceTracker tracker) override {
    native_.attachAllocatorTraceTracker(std::move(tracker));
  }
  void enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex peer) override { native_.enablePeerAccess(device, peer); }
  std::shared_ptr<torch_allocator::AllocatorState> getCheckpointState(c10::DeviceIndex device, Pool pool) override {
    return native_.getCheckpointState(device, pool);
  }
  std::string name() override { return native_.name(); }  // expandable segments, NCCL and graph code test for it
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex device) override { return native_.getMemoryInfo(device); }

 protected:
  virtual c10::DataPtr adopt(c10::DataPtr native) const = 0;  // the same memory with our deleter

  CUDAAllocator& native_;
};

}  // namespace reprise::cuda
