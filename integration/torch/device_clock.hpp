// DeviceClock: seconds that the Ops of one Pass took on a CUDA device. By CUPTI's records where they can be had; else by an event before and one after each Op,
// which count the gaps between its kernels too. Nothing waits for the device before read().
//
// Threads: begin() and end() from any, each pair on one thread; read() once. Failure: what could not be measured is not there; source() says what was used and why.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "profiler/kernel_clock.hpp"

namespace reprise::engine {

struct OpTime {
  int32_t op;
  bool replay;
  double seconds;
};

class DeviceClock {
 public:
  static std::unique_ptr<DeviceClock> start();  // nullptr on the CPU
  ~DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  // Around the launch of an Op. end() takes what begin() gave.
  size_t begin(int32_t op, bool replay, const c10::Stream& stream);
  void end(size_t which, const c10::Stream& stream);
  std::vector<OpTime> read();  // waits for the device

 private:
  struct Entry {
    int32_t op;
    bool replay;
    std::optional<c10::Event> before, after;
  };
  explicit DeviceClock(KernelClock* kernels) : kernels_(kernels) {}
  std::vector<OpTime> from_records(KernelClock& kernels);
  std::vector<OpTime> from_events();

  std::atomic<KernelClock*> kernels_;  // running; nullptr: events
  std::atomic<bool> read_{false};      // what comes later is not measured
  std::mutex mutex_;
  std::vector<Entry> entries_;
};

// A scope in which an Op is launched. Nothing without a clock or a stream.
class Timed {
 public:
  Timed(DeviceClock* clock, int32_t op, bool replay, const std::optional<c10::Stream>& stream) : clock_(stream ? clock : nullptr), stream_(stream) {
    if (clock_ != nullptr) which_ = clock_->begin(op, replay, *stream_);
  }
  ~Timed() {
    if (clock_ != nullptr) clock_->end(which_, *stream_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  DeviceClock* clock_;
  const std::optional<c10::Stream>& stream_;
  size_t which_ = 0;
};

// Of the last Pass that was measured, for reports.
struct ClockSource {
  std::string text;              // "CUPTI activity records"; "CUDA events: …why no records"; "" on the CPU
  uint64_t dropped = 0;          // records that CUPTI lost, in all
  double unclaimed_seconds = 0;  // of work that no Op launched
};
ClockSource clock_source();

}  // namespace reprise::engine
