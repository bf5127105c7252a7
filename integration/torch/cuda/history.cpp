#include "integration/torch/cuda/history.hpp"

#include <c10/util/ApproximateClock.h>

#include <algorithm>
#include <utility>

namespace reprise::cuda {

void History::record(bool enabled, c10::CachingDeviceAllocator::CreateContextFn gather, std::size_t most_entries, RecordContext when, bool clear,
                     const std::vector<std::string>& skipped_actions) {
  const std::lock_guard<std::mutex> lock(mutex_);
  gather_ = gather;
  when_ = enabled ? when : RecordContext::NEVER;
  most_entries_ = std::max<std::size_t>(most_entries, 1);
  skipped_.clear();
  for (const std::string& action : skipped_actions) skipped_.insert(c10::CachingDeviceAllocator::parseTraceEntryAction(action));
  if (clear || !enabled) {
    entries_.clear();
    live_.clear();
  }
  enabled_ = enabled;
  wanted_ = enabled || trackers_ != nullptr;
}

Context History::context(RecordContext at_least) const {
  c10::CachingDeviceAllocator::CreateContextFn gather = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (when_ >= at_least) gather = gather_;
  }
  return gather == nullptr ? nullptr : gather();
}

void History::attach(c10::CachingDeviceAllocator::AllocatorTraceTracker tracker) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto more = trackers_ == nullptr ? std::make_shared<Trackers>() : std::make_shared<Trackers>(*trackers_);
  more->push_back(std::move(tracker));
  trackers_ = std::move(more);
  wanted_ = true;
}

// Trackers hear of it first; the history keeps it if it is recorded.
void History::note(TraceEntry::Action action, c10::DeviceIndex device, std::size_t address, std::size_t bytes, void* stream, Context context) {
  TraceEntry entry(action, device, address, bytes, stream, c10::MempoolId_t{0, 0}, c10::getApproximateTime(), std::move(context));
  std::shared_ptr<const Trackers> trackers;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    trackers = trackers_;
  }
  if (trackers != nullptr)
    for (const auto& tracker : *trackers) tracker(entry);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (enabled_) keep(std::move(entry));
}

void History::keep(TraceEntry entry) {
  if (skipped_.contains(entry.action_)) return;
  entries_.push_back(std::move(entry));
  if (entries_.size() > most_entries_) entries_.pop_front();
}

void History::allocated(c10::DeviceIndex device, void* pointer, std::size_t bytes, void* stream, Context context) {
  bool shown = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (context != nullptr) live_[pointer] = context;
    shown = when_ >= RecordContext::ALLOC;
  }
  note(TraceEntry::ALLOC, device, reinterpret_cast<std::size_t>(pointer), bytes, stream, shown ? std::move(context) : nullptr);
}

// The core says nothing of the moment at which the last stream lets go: both entries come here.
void History::freed(c10::DeviceIndex device, void* pointer, std::size_t bytes, void* stream, Context context) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_.erase(pointer);
  }
  for (const auto action : {TraceEntry::FREE_REQUESTED, TraceEntry::FREE_COMPLETED})
    note(action, device, reinterpret_cast<std::size_t>(pointer), bytes, stream, context);
}

void History::ran_out(c10::DeviceIndex device, std::size_t free_bytes, std::size_t asked_bytes, void* stream, Context context) {
  note(TraceEntry::OOM, device, free_bytes, asked_bytes, stream, std::move(context));
}

void History::pages_changed(c10::DeviceIndex device, const std::vector<PageChange>& changes, const Context& context) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!enabled_) return;
  for (const PageChange& change : changes) {
    const auto action = change.committed ? TraceEntry::SEGMENT_MAP : TraceEntry::SEGMENT_UNMAP;
    keep(TraceEntry(action, device, reinterpret_cast<std::size_t>(change.first), change.bytes, nullptr, c10::MempoolId_t{0, 0}, c10::getApproximateTime(),
                    when_ >= RecordContext::ALLOC ? context : nullptr));
  }
}

Context History::of_live(void* pointer) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = live_.find(pointer);
  return found == live_.end() ? nullptr : found->second;
}

void History::add_to(std::vector<TraceEntry>& entries, c10::DeviceIndex device) const {
  c10::ApproximateClockToUnixTimeConverter converter;
  const auto to_nanoseconds = converter.makeConverter();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const TraceEntry& entry : entries_) {
      if (entry.device_ != device) continue;
      entries.push_back(entry);
      entries.back().time_.t_ = to_nanoseconds(entry.time_.approx_t_) / 1000;
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const TraceEntry& a, const TraceEntry& b) { return a.time_.t_ < b.time_.t_; });
}

}  // namespace reprise::cuda
