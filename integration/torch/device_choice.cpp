#include "integration/torch/device_choice.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "integration/report/amounts.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/engine.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/overflow.hpp"
#include "policy/budget.hpp"

namespace reprise {

namespace {

using engine::Controller;

// Live bytes are the core's and the temporary file's. Peaks of the sum, while there is something in the file: noted at every allocation.
std::atomic<int64_t> highest{0};

void note_peak_with_overflow() {
  if (overflow::live_bytes() == 0) return;
  const auto sum = static_cast<int64_t>(budgeted_core().statistics().live_bytes + overflow::live_bytes());
  int64_t seen = highest.load();
  while (seen < sum && !highest.compare_exchange_weak(seen, sum)) {
  }
}

class EventOutlet final : public AllocationObserver {
 public:
  void on_allocate(void* pointer, std::size_t bytes, Tag) noexcept override {
    if (engine::current_task() >= 0) engine::tag_backward(pointer);
    engine::trace_allocation(pointer, static_cast<long long>(bytes));
    note_peak_with_overflow();
  }
  void on_free(void* pointer, std::size_t bytes) noexcept override { engine::trace_allocation(pointer, -static_cast<long long>(bytes)); }
};

std::atomic<bool> open_device{false};
std::mutex open_mutex;
std::string open_budget;  // as it was given: 60 % is another number of bytes on another device

c10::Device device_of_arguments(const torch::jit::Stack& arguments) {
  for (const c10::IValue& argument : arguments) {
    if (argument.isTensor() && argument.toTensor().defined() && argument.toTensor().is_cuda()) return argument.toTensor().device();
    if (argument.isTensorList())
      for (const at::Tensor& tensor : argument.toTensorVector())
        if (tensor.defined() && tensor.is_cuda()) return tensor.device();
  }
  return c10::kCPU;
}

}  // namespace

void on_overflow(void* pointer, long long change) {
  engine::trace_allocation(pointer, change);
  if (change > 0) note_peak_with_overflow();
}

int64_t peak_with_overflow() { return highest; }

void reset_peak_with_overflow() {
  highest = 0;
  note_peak_with_overflow();
}

void watch_budgeted_core() {
  static EventOutlet* const outlet = new EventOutlet;  // lives as long as the process, as the cores do
  Controller::get().set_observer(outlet);
  budgeted_core().set_pressure([](std::size_t bytes) { return Controller::get().revoke(bytes); });
}

void move_to(c10::Device device) {
  CachingAllocator& before = budgeted_core();
  choose_budgeted_device(device);
  if (&before == &budgeted_core()) return;
  before.set_observer(nullptr);
  before.set_pressure({});
  watch_budgeted_core();
}

DeviceMove::DeviceMove(c10::Device to) : from_(budgeted_device()), budget_bytes_(Controller::get().config().budget_bytes) { move_to(to); }

DeviceMove::~DeviceMove() {
  if (kept_ || from_ == budgeted_device()) return;
  move_to(from_);  // it was served by us before
  set_budget(budget_bytes_ > 0 ? std::size_t(budget_bytes_) : kNoCap);
}

// The CUDA device that the parameters are on, or the CPU.
c10::Device device_of(const NamedStorages& parameters) {
  c10::Device found = c10::kCPU;
  for (const auto& [name, storage] : parameters) {
    if (!storage->device().is_cuda() || storage->device() == found) continue;
    if (!found.is_cpu())
      throw std::invalid_argument("argument model: its parameters are on " + found.str() + " and on " + storage->device().str() +
                                  "; a budget is for one device");
    found = storage->device();
  }
  return found;
}

int64_t budget_bytes(const std::string& budget) {
  if (budget.empty()) return 0;
  const auto device = static_cast<int64_t>(budgeted_capacity()), bytes = Budget::parse(budget).resolve(device);
  if (bytes <= device) return bytes;
  std::fprintf(stderr, "reprise: budget %s is more than the device has (%s); using that\n", budget.c_str(), exact_bytes(device).c_str());
  return device;
}

void leave_device_open(std::string budget) {
  const std::lock_guard<std::mutex> lock(open_mutex);
  open_budget = std::move(budget);
  open_device = true;
}

void settle_device() { open_device = false; }

bool device_is_open() { return open_device.load(std::memory_order_relaxed); }

bool follow_device(const torch::jit::Stack& arguments) {
  const c10::Device device = device_of_arguments(arguments);
  if (device.is_cpu()) return false;
  const std::lock_guard<std::mutex> lock(open_mutex);
  if (!open_device) return false;
  move_to(device);
  const int64_t bytes = budget_bytes(open_budget);
  const auto live = static_cast<int64_t>(budgeted_core().statistics().live_bytes);
  if (!set_budget(bytes > 0 ? std::size_t(bytes) : kNoCap))
    engine::raise("reprise: the budget of " + exact_bytes(bytes) + " is less than what " + device.str() + " holds already: " + exact_bytes(live) + " are live",
                  0);
  Controller::get().set_budget_bytes(bytes);
  open_device = false;
  return true;
}

}  // namespace reprise
