// R12, streams: what is made again runs on the stream it was recorded on, after what it reads, and who consumes it comes after it.
//
// A replay is one chain of work over streams. It begins behind the consumer (the stream that is current when a saved tensor is asked for), goes to each Op's
// stream in turn, and ends at the consumer again; every change of stream is an event. On the CPU there are no streams and nothing happens.
// Threads: a chain belongs to one thread; a Ready may be asked from any.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Storage.h>
#include <c10/core/Stream.h>

#include <memory>
#include <optional>

namespace reprise::engine {

std::optional<c10::Stream> current_stream();                                          // of the budgeted device; none on the CPU
bool is_capturing();                                                                  // a CUDA graph, on that stream
void used_on(const c10::Storage& storage, const std::optional<c10::Stream>& stream);  // its memory is not given to others before that stream is through

class StreamChain {
 public:
  StreamChain() : consumer_(current_stream()), at_(consumer_) {}
  ~StreamChain() { go_to(consumer_); }
  StreamChain(const StreamChain&) = delete;
  StreamChain& operator=(const StreamChain&) = delete;

  void go_to(const std::optional<c10::Stream>& stream);  // makes it current, behind all of the chain so far
  const std::optional<c10::Stream>& consumer() const { return consumer_; }

 private:
  std::optional<c10::Stream> consumer_, at_;
};

// The end of a replay, for consumers on other streams that come later.
class Ready {
 public:
  static std::shared_ptr<const Ready> here();  // nullptr on the CPU
  void before(const std::optional<c10::Stream>& consumer) const;

 private:
  explicit Ready(c10::Stream stream) : stream_(stream), event_(stream.device_type()) { event_.record(stream); }
  c10::Stream stream_;
  c10::Event event_;
};

}  // namespace reprise::engine
