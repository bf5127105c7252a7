// torch 2.15: what it asks beyond 2.11.
#pragma once

#include "integration/torch/cuda/forwarding.hpp"

namespace reprise::cuda {

class MinorForwarding : public Forwarding {
 public:
  using Forwarding::Forwarding;

  void attachOomRejectionObserver(torch_allocator::OomRejectionObserver observer) override { native_.attachOomRejectionObserver(std::move(observer)); }
  void markCaptureBegin(c10::DeviceIndex device) override { native_.markCaptureBegin(device); }
  void markCaptureEnd(c10::DeviceIndex device) override { native_.markCaptureEnd(device); }
  std::shared_ptr<c10::GatheredContext> getContextForPointer(const void* pointer) override { return native_.getContextForPointer(pointer); }
  bool supportsUserMetadata() override { return native_.supportsUserMetadata(); }
  void annotateMemory(const void* pointer, const std::string& text) override { native_.annotateMemory(pointer, text); }
  c10::DataPtr allocateWithAddress(std::size_t bytes, void* address) override { return adopt(native_.allocateWithAddress(bytes, address)); }
};

}  // namespace reprise::cuda
