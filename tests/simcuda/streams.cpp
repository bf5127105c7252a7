// Streams, events and capture on the virtual clock.
#include <algorithm>
#include <utility>

#include "model.hpp"

namespace simcuda {

namespace {
constexpr int kNotReady = 600, kCaptureUnsupported = 900, kCaptureIsolation = 905, kCapturedEvent = 907;
}

Stream& stream_of(void* handle) {
  if (reinterpret_cast<std::uintptr_t>(handle) <= 2) return state().devices[static_cast<std::size_t>(current_device())].default_stream;
  return *static_cast<Stream*>(handle);
}

Stream& make_stream(unsigned flags, int priority) {
  SIMCUDA_LOCK;
  auto& streams = state().devices[static_cast<std::size_t>(current_device())].streams;
  streams.push_back(std::make_unique<Stream>());
  Stream& made = *streams.back();
  made.id = state().next_id++;
  made.device = current_device();
  made.priority = priority;
  made.flags = flags;
  made.ready = state().clock;
  return made;
}

Event::Event(unsigned given_flags) : flags(given_flags) {
  SIMCUDA_LOCK;
  state().timing_events += takes_time() ? 1 : 0;
}
Event::~Event() {
  SIMCUDA_LOCK;
  state().timing_events -= takes_time() ? 1 : 0;
}

void set_watcher(Watcher watcher) {
  SIMCUDA_LOCK;
  state().watcher = watcher;
}

void enqueue(void* handle, Nanoseconds cost, Work run, WorkKind kind) {
  SIMCUDA_LOCK;
  Stream& stream = stream_of(handle);
  if (stream.capture != nullptr) {
    auto& nodes = stream.capture->content->nodes;
    nodes.push_back(std::make_unique<Node>(Node{stream.capture, stream.tail, std::move(run), cost}));
    stream.tail = {nodes.back().get()};
    return;
  }
  if (run && runs_late(stream)) {
    stream.queue.push_back(std::move(run));
    stream.issued++;
  } else if (run) {
    run();
  }
  state().clock += kLaunchCost;
  const Nanoseconds start = std::max(stream.ready, state().clock);
  stream.ready = start + cost;
  if (state().watcher != nullptr && kind != WorkKind::kOther) state().watcher(stream, kind, start, stream.ready);
}

bool runs_late(const Stream& stream) {
  return state().late && &stream != &state().devices[static_cast<std::size_t>(stream.device)].default_stream && stream.capture == nullptr;
}

void drain(Stream& stream, std::uint64_t mark) {
  SIMCUDA_LOCK;
  while (stream.done < mark && !stream.queue.empty()) {
    const Work run = std::move(stream.queue.front());
    stream.queue.pop_front();
    stream.done++;
    run();
  }
}

void synchronize(int device_index) {
  SIMCUDA_LOCK;
  Device& device = state().devices[static_cast<std::size_t>(device_index)];
  Nanoseconds ready = device.default_stream.ready;
  for (const auto& stream : device.streams) {
    drain(*stream);
    ready = std::max(ready, stream->ready);
  }
  state().clock = std::max(state().clock, ready);
}

int record(Event& event, Stream& stream) {
  SIMCUDA_LOCK;
  event.capture = stream.capture;
  event.capture_id = stream.capture_id;
  event.tail.clear();
  if (stream.capture != nullptr) {
    event.tail = stream.tail;
    return 0;
  }
  state().clock += kQueryCost;
  event.recorded = true;
  event.time = std::max(stream.ready, state().clock);
  event.stream = &stream;
  event.mark = stream.issued;
  return 0;
}

int query(Event& event) {
  SIMCUDA_LOCK;
  if (event.capture != nullptr) return kCapturedEvent;
  state().clock += kQueryCost;
  if (!event.recorded) return 0;
  if (event.time > state().clock) return kNotReady;
  drain(*event.stream, event.mark);
  return 0;
}

int synchronize(Event& event) {
  SIMCUDA_LOCK;
  if (event.capture != nullptr) return kCapturedEvent;
  if (!event.recorded) return 0;
  drain(*event.stream, event.mark);
  state().clock = std::max(state().clock, event.time);
  return 0;
}

int wait(Stream& stream, Event& event) {
  SIMCUDA_LOCK;
  if (event.capture != nullptr) {  // to wait for captured work is to join the capture
    if (stream.capture != nullptr && stream.capture != event.capture) return kCaptureIsolation;
    stream.capture = event.capture;
    stream.capture_id = event.capture_id;
    stream.tail.insert(stream.tail.end(), event.tail.begin(), event.tail.end());
    return 0;
  }
  if (!event.recorded) return 0;
  stream.ready = std::max(stream.ready, event.time);
  if (event.stream->queue.empty()) return 0;
  if (runs_late(stream)) {
    stream.queue.push_back([other = event.stream, mark = event.mark] { drain(*other, mark); });
    stream.issued++;
  } else {
    drain(*event.stream, event.mark);
  }
  return 0;
}

int query(Stream& stream) {
  SIMCUDA_LOCK;
  if (stream.capture != nullptr) return kCaptureUnsupported;
  state().clock += kQueryCost;
  if (stream.ready > state().clock) return kNotReady;
  drain(stream);
  return 0;
}

int synchronize(Stream& stream) {
  SIMCUDA_LOCK;
  if (stream.capture != nullptr) return kCaptureUnsupported;
  drain(stream);
  state().clock = std::max(state().clock, stream.ready);
  return 0;
}

}  // namespace simcuda
