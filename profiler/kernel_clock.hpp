// KernelClock: seconds that a device's kernels, copies and fills took, by the id that was pushed around their launch (an Op of a Pass, a Region).
//
// K1: between start() and stop() each finished piece of work is in `seconds` once, under the innermost id of the thread that launched it, or in unclaimed_seconds
// K2: what could not be written down is counted in `dropped`: with dropped == 0 nothing is missing
// K3: stop() leaves nothing behind: no activity is enabled, nothing is subscribed
//
// Threads: push and pop belong to their thread; start and stop to one owner at a time. Failure: start() is false, with the reason in words.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace reprise {

struct KernelTimes {
  std::unordered_map<uint64_t, double> seconds;
  double unclaimed_seconds = 0;  // of work launched outside push and pop
  uint64_t records = 0;
  uint64_t dropped = 0;
};

class KernelClock {
 public:
  virtual ~KernelClock() = default;
  virtual bool start(std::string& why) = 0;
  virtual void push(uint64_t id) = 0;
  virtual void pop() = 0;
  virtual KernelTimes stop() = 0;  // of work that is finished: the caller waits for the device first
};

}  // namespace reprise
