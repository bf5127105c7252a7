// Gpu: one GPU that answers, as the driver knows it; what both ways to its memory begin with. Immutable.
//
// Threads: any. Cost: driver calls. Failure: find() is empty, and says why in words.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "allocator/cuda/driver.hpp"

namespace reprise::cuda {

struct Gpu {
  const Driver* driver = nullptr;
  int ordinal = 0;
  CUcontext context = nullptr;  // the primary one: torch's
  std::size_t capacity_bytes = 0;

  static std::optional<Gpu> find(int ordinal, std::string& why);
  bool maps_memory() const;        // driver and device have virtual memory management
  std::size_t free_bytes() const;  // what nobody on the device holds now; 0 where it does not say
  std::string name() const { return "device " + std::to_string(ordinal); }
};

// While it lives, the GPU's context is current in this thread, and a capture that is under way there is not disturbed.
class Within {
 public:
  explicit Within(const Gpu& gpu) : driver_(*gpu.driver) {
    driver_.cuCtxPushCurrent(gpu.context);
    driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  }
  ~Within() {
    driver_.cuThreadExchangeStreamCaptureMode(&mode_);
    CUcontext ours;
    driver_.cuCtxPopCurrent(&ours);
  }
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;

 private:
  const Driver& driver_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace reprise::cuda
