// Which device the budget is about, and the watch over its core. With a model it is the device of its parameters. Without one (REPRISE_BUDGET alone, functional
// code) it is the CPU until a Pass begins with a tensor on a CUDA device: the budget is that one's from then on.
//
// Threads: any. Failure: named at each.
#pragma once

#include <ATen/core/stack.h>

#include <cstdint>
#include <string>

#include "integration/cpp/reprise.hpp"
#include "integration/torch/budgeted.hpp"

namespace reprise {

c10::Device device_of(const NamedStorages& parameters);  // throws std::invalid_argument where they are on several
int64_t budget_bytes(const std::string& budget);         // of the budgeted device, at most its capacity; 0 for ""
void move_to(c10::Device device);                        // as choose_budgeted_device(), and the watch goes along
// move_to(), taken back with the budget that was there unless keep() is called: what is refused on the way changes nothing.
class DeviceMove {
 public:
  explicit DeviceMove(c10::Device to);
  ~DeviceMove();
  DeviceMove(const DeviceMove&) = delete;
  DeviceMove& operator=(const DeviceMove&) = delete;
  void keep() noexcept { kept_ = true; }

 private:
  c10::Device from_;
  int64_t budget_bytes_;
  bool kept_ = false;
};
void watch_budgeted_core();
void on_overflow(void* pointer, long long change);

void leave_device_open(std::string budget);
void settle_device();
bool device_is_open();
// At the first Op of a Pass, with its arguments. True: the budget moved. Throws Infeasible where what is live there does not fit: the device stays open.
bool follow_device(const torch::jit::Stack& arguments);

int64_t peak_with_overflow();  // of live bytes, the temporary file's included, while there is something in it; since the last reset
void reset_peak_with_overflow();

}  // namespace reprise
