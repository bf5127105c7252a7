#include "integration/torch/device_clock.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/profiler/api.h>

#include <cstdlib>
#include <string_view>
#include <utility>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/cuda_memory.hpp"

namespace reprise::engine {

namespace {

std::mutex source_mutex;
ClockSource source;

void note_source(std::string text) {
  const std::lock_guard<std::mutex> lock(source_mutex);
  source.text = std::move(text);
}

// Set once records did not come although work was launched: something else took the process's stream of them.
std::atomic<bool> records_failed{false};

// nullptr: events are to be used, and `why` not records.
KernelClock* running_kernel_clock(std::string& why) {
  const char* const wanted = std::getenv("REPRISE_CLOCK");
  if (wanted != nullptr && std::string_view(wanted) == "events") {
    why = "REPRISE_CLOCK asks for them";
  } else if (torch::profiler::impl::profilerEnabled()) {
    why = "torch's profiler is on, and records are its";
  } else if (records_failed) {
    why = "CUPTI gave no records before";
  } else if (KernelClock* const clock = cuda_memory()->kernel_clock(why); clock != nullptr && clock->start(why)) {
    return clock;
  }
  return nullptr;
}

}  // namespace

ClockSource clock_source() {
  const std::lock_guard<std::mutex> lock(source_mutex);
  return source;
}

std::unique_ptr<DeviceClock> DeviceClock::start() {
  if (budget_is_on_cpu()) return nullptr;
  std::string why;
  KernelClock* const kernels = running_kernel_clock(why);
  note_source(kernels != nullptr ? "CUPTI activity records" : "CUDA events: " + why);
  return std::unique_ptr<DeviceClock>(new DeviceClock(kernels));
}

DeviceClock::~DeviceClock() {
  if (KernelClock* const kernels = kernels_.exchange(nullptr)) kernels->stop();
}

size_t DeviceClock::begin(int32_t op, bool replay, const c10::Stream& stream) {
  if (read_) return SIZE_MAX;
  Entry entry{op, replay, {}, {}};
  KernelClock* const kernels = kernels_;
  if (kernels == nullptr) {
    entry.before.emplace(stream.device_type(), c10::EventFlag::BACKEND_DEFAULT);  // one that takes the time
    entry.after.emplace(stream.device_type(), c10::EventFlag::BACKEND_DEFAULT);
    entry.before->record(stream);
  }
  size_t which;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    which = entries_.size();
    entries_.push_back(std::move(entry));
  }
  if (kernels != nullptr) kernels->push(which);
  return which;
}

void DeviceClock::end(size_t which, const c10::Stream& stream) {
  if (which == SIZE_MAX) return;
  if (KernelClock* const kernels = kernels_) return kernels->pop();
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_[which].after->record(stream);
}

std::vector<OpTime> DeviceClock::from_records(KernelClock& kernels) {
  const KernelTimes times = kernels.stop();
  if (times.records == 0 && !entries_.empty()) records_failed = true;
  {
    const std::lock_guard<std::mutex> lock(source_mutex);
    source.dropped += times.dropped;
    source.unclaimed_seconds = times.unclaimed_seconds;
  }
  std::vector<OpTime> out;
  for (size_t i = 0; i < entries_.size(); i++)
    if (const auto found = times.seconds.find(i); found != times.seconds.end()) out.push_back({entries_[i].op, entries_[i].replay, found->second});
  return out;
}

std::vector<OpTime> DeviceClock::from_events() {
  std::vector<OpTime> out;
  for (const Entry& entry : entries_) {
    if (!entry.after->was_marked_for_recording()) continue;  // the Op raised
    out.push_back({entry.op, entry.replay, entry.before->elapsedTime(*entry.after) * 1e-3});
  }
  return out;
}

std::vector<OpTime> DeviceClock::read() {
  c10::impl::VirtualGuardImpl(c10::kCUDA).synchronizeDevice(budgeted_device().index());
  read_ = true;
  KernelClock* const kernels = kernels_.exchange(nullptr);
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<OpTime> out = kernels != nullptr ? from_records(*kernels) : from_events();
  entries_.clear();
  return out;
}

}  // namespace reprise::engine
