// Pass: one forward up to the end of its last backward, recorded below autograd so that any Value it made can be made again.
//
// Words: an Op is one executed operator; a Value is the content of one storage between two writes; a Ref is
// a Value seen through a Geometry; a Source is a Value held so that others can be replayed from it.
//
// Invariants (check_invariants names the violated one)
//   E1  held is set  =>  it holds exactly the content that the Value names (a write to the program's storage lets go of it first, or copies it)
//   E2  a Value without a producer that a replayable Op reads is held
//   E3  a Value is available  <=>  held, or its storage is alive and shows this Value still
//   E4  sum(handles of all Values) + kept handles == live_handles
//   E5  an Op that is not opaque has one Slot per argument, and every Ref in it names a Value made before it
//   E6  no Op that was recorded after a Value was stranded reads it while it has a producer
//   E7  a packed form that is there holds the whole content that the Value names; it is let go of when the Pass is finished
//
// Threads: one mutex per Pass. It is never held while the program's own kernel runs; it is held while a replay runs (those kernels are C++ only and
// take no GIL). Storages that may own a Python object are released after the mutex (Garbage).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "integration/torch/device_clock.hpp"
#include "integration/torch/overflow.hpp"
#include "integration/torch/placing.hpp"
#include "integration/torch/recording.hpp"
#include "integration/torch/tags.hpp"
#include "policy/plan.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

// Of all Ops of a Trace, in order; shared, since a Known is copied several times a Pass.
using Hashes = std::shared_ptr<const std::vector<uint64_t>>;

// A Plan ready to be followed: the same content, indexed.
struct Following {
  Plan plan;
  Hashes match, structure;                                   // Op::match and Op::structure of the Trace it was made for
  std::vector<uint8_t> drop;                                 // per Value: a Group makes or unpacks it. Neither: the Plan does not speak of it
  std::vector<Packing> pack;                                 // per Value: the form to be held in
  std::vector<uint8_t> keep;                                 // per Value
  std::vector<int32_t> reads;                                // per Value: Groups that name it as a source
  std::vector<int32_t> unpacks;                              // per Value: Groups that unpack it for their Ops
  std::unordered_map<int32_t, std::vector<int32_t>> groups;  // trigger -> indices into plan.groups, in order
  std::unordered_map<int32_t, int32_t> retained_by;          // Value -> the first Group that makes it and holds it
  static std::shared_ptr<const Following> of(Plan plan, Hashes match, Hashes structure);
};

// What R11 caught in earlier Passes, by where in the Pass it happened. Shared by all Passes; its own mutex.
class Caught {
 public:
  void add(uint64_t place);
  bool has(uint64_t place) const;
  std::vector<uint64_t> places() const;  // in order
  void clear();
  size_t size() const { return count_.load(std::memory_order_relaxed); }

 private:
  mutable std::mutex mutex_;
  std::unordered_set<uint64_t> places_;
  std::atomic<size_t> count_{0};
};
extern Caught caught;

struct PassOptions {
  enum class Unplanned : uint8_t { kKeep, kGroups };  // what to do with saved Values that no Plan speaks of
  Unplanned unplanned = Unplanned::kKeep;
  int64_t group_bytes = 64 << 20;      // kGroups: a Group closes when it has dropped so much
  int64_t copy_input_bytes = 4 << 20;  // fingerprint: so much of the inputs is copied (R11)
  bool trace = false;                  // write events for a Profile
  bool sample = false;                 // measure Ops as well as can be: the thread's CPU seconds where one thread does the work (others may use the machine)
  bool fingerprint = false;            // R11
  bool lent = false;                   // `following` was made for a larger step: the structure has to be its Trace's, not the shapes
  bool verify = false;                 // replay everything once and compare (REPRISE_VERIFY)
  std::shared_ptr<const Following> following;
  std::shared_ptr<const std::vector<int32_t>> regions;  // per Value of the Trace that was learned; may be null
};

struct Counters {
  std::atomic<int64_t> recorded{0}, replayed{0}, replays{0}, unplanned{0}, dropped{0}, kept{0}, found_alive{0}, opaque{0}, source_copies{0}, lent{0},
      source_copy_bytes{0}, revoked{0}, revoked_bytes{0}, passes{0}, broken_plans{0}, verified{0}, overflow_bytes{0}, unseen_writes{0}, unrecorded_saved{0},
      packed{0}, packed_away_bytes{0}, unpacked{0}, pack_refused{0}, learned{0}, repeated{0};  // repeated: of those recorded, taken over from the Pass before
};
extern Counters counters;

// Storages let go of under the mutex and destroyed after it: their last owner may be a Python object.
using Garbage = c10::SmallVector<c10::Storage, 4>;

class Replay;

class Pass {
 public:
  explicit Pass(PassOptions options);
  ~Pass();

  // ---- recording (recorder.cpp) ----
  void run_and_record(const c10::OperatorHandle& op, const OperatorFacts& facts, c10::DispatchKeySet keys, torch::jit::Stack* stack);
  // A write that is not recorded (backward, optimizer): dependents keep what they need (R7). Call before the operator runs.
  void prepare_unrecorded_write(const at::Tensor& written);
  void note_freed(const void* address);  // by this Pass's thread; sharded.cpp

  // ---- saved tensors (saved.cpp) ----
  struct Saved {
    int32_t value = -1;
    at::Tensor kept;
  };                                                            // kept is set where the Value is no replay's business
  Saved save(const at::Tensor& tensor, bool plain, bool keep);  // plain: it may become a Value (R4)
  c10::Storage fetch(int32_t value);                            // replays if it has to
  void release(const Saved& saved);                             // its handle died
  void end_of_task(int task, bool graph_kept);                  // an autograd task is through
  bool recording() const { return recording_.load(std::memory_order_relaxed); }
  bool idle() const { return live_handles_.load(std::memory_order_relaxed) == 0; }
  bool backward_seen() const { return backward_seen_.load(std::memory_order_relaxed); }
  void stop_recording();          // the next Pass has begun, or the last backward is through
  void fetched_kept();            // autograd asked for a saved tensor that was kept
  bool first_of_task(int task) {  // true once per autograd task
    return task_.load(std::memory_order_relaxed) != task && task_.exchange(task) != task;
  }
  bool abandoned() const { return idle() && saved_anything_.load(std::memory_order_relaxed); }  // its graph was freed without backward
  bool wants_choice() const { return !chosen_; }
  void choose(const OperatorFacts& first, const torch::jit::Stack& stack);  // which Plan to follow, at the first Op
  void set_options(PassOptions options);
  // What the cap has no room for goes to a temporary file until the Pass is finished. Without a limit the Pass is one that is only to be measured.
  void may_overflow(std::optional<size_t> limit_bytes);
  int64_t overflow_bytes() const { return overflow_start_bytes_ < 0 ? 0 : int64_t(overflow::peak_bytes()) - overflow_start_bytes_; }
  int64_t revoked_bytes() const { return revoked_bytes_; }  // what pressure took, of the Pass's own
  double added_seconds() const;  // spent on replays, packing and unpacking: the thread's CPU seconds, or the clock's where several work
  bool only_measured() const { return only_measured_ && overflow_bytes() > 0; }
  std::vector<int32_t> refused_packings() const;  // Values whose content did not fit the form that the Plan wanted them in
  size_t revoke(size_t bytes);                    // pressure: lets go of kept Values that can be replayed; returns bytes freed

  // ---- after it (trace_writer.cpp) ----
  Trace trace(const std::unordered_map<c10::StorageImpl*, int32_t>& parameter_regions, std::vector<std::string> regions) const;
  std::vector<uint64_t> matches() const, structures() const;
  PassSeconds op_seconds() const;
  void read_clock();  // the device's, where there is one: waits for it. Until then an Op's seconds are those of its launch
  const PassOptions& options() const { return options_; }
  bool plan_held() const { return options_.following && broken_at_ == kNever && ops_.size() == options_.following->match->size(); }
  bool caught_something() const { return caught_; }
  std::string check_invariants() const;
  void note(Mark mark, int64_t a, int64_t b = 0) {
    if (!options_.trace) return;
    const std::lock_guard<std::mutex> lock(events_mutex_);  // two backwards may share a graph
    events_.push_back({mark, a, b});
  }
  int64_t start_live_bytes = 0;
  std::atomic<int64_t> level_bytes{0}, peak_bytes{0};  // live bytes of the Pass's threads above the start, and their peak
  double started_seconds = 0;
  uint64_t key = 0;  // of the first Op: which Known it belongs to
  Placing placing;
  bool finished = false;
  bool partial = false;  // begun in the middle of a step

 private:
  friend class Replay;    // replay.cpp
  friend class Call;      // recorder.cpp
  friend class Repeated;  // repeated.cpp

  int32_t value_of(const at::Tensor& tensor) const;                               // -1: never seen
  int32_t value_or_outside(const at::Tensor& tensor, uint64_t place, bool read);  // read: its content matters to the Op that has it as an argument
  int32_t new_value(const at::Tensor& tensor, int32_t producer);
  int32_t latest(int32_t value) const {
    while (values_[size_t(value)].next >= 0) value = values_[size_t(value)].next;
    return value;
  }
  c10::Storage private_copy(int32_t value, const c10::Storage& storage);
  void hold(int32_t value, Garbage& garbage);  // the program's storage
  void tag_made(int32_t value, const c10::Storage& storage) const;
  void tag_held(const Value& value) const;  // does autograd need it?
  void count_whole(const at::Tensor& kept, int change);
  void let_go(Value& value, Garbage& garbage);
  void let_go_if_unneeded(int32_t value, Garbage& garbage);
  std::optional<c10::Storage> available(int32_t value) const;
  // ---- packed forms (packed.cpp) ----
  void look_for_packing(int32_t value, const c10::Storage& storage);
  void pack_value(int32_t value, Packing form, Garbage& garbage);
  c10::Storage unpack_value(int32_t value);
  bool is_packed(int32_t value) const { return values_[size_t(value)].packed && values_[size_t(value)].packed->content; }

  void settle(int32_t value, const char* reason);  // from now on kept, never made again
  void before_write(int32_t value, Garbage& garbage);
  int32_t after_write(const at::Tensor& tensor, int32_t before, int32_t producer, Garbage& garbage);
  // Sources that come and go (sharded.cpp): parameters that FSDP gathers for as long as they are used.
  void watch_source(int32_t value);
  void heed_emptied();
  void strand_dependents(const std::vector<int32_t>& emptied);
  bool brought_back(int32_t value);             // a write to it is about to do that
  bool is_open(const Value& value) const;       // what it was made with is not emptied now
  bool needed_by_dropped(int32_t value) const;  // does a dropped Value depend on it?
  // R11: compares the content with the one last seen; returns the Value that the storage shows now (a new one after an unseen write).
  int32_t check_fingerprint(const at::Tensor& tensor, int32_t value, Garbage& garbage);
  void check_outside_copies();  // the same for inputs that were copied, at the end of the Pass
  void follow(size_t op);
  const Group* planned_group(int32_t value, std::optional<Group>& shortened);  // the Plan's own, or `shortened` where the Plan is broken
  Group before_break(Group group) const;
  void poll_gone();
  void begin_backward();
  void consume(int32_t value, const c10::Storage& storage) const;
  void close(Garbage& garbage);
  // ---- of one call (recorder.cpp) ----
  void hold_sources(const Op& op, Garbage& garbage);
  int32_t book_result(const at::Tensor& result, Op& op, int32_t index);  // the Value that it is the first to show, or -1
  uint64_t hash_of_made(const Op& op) const;
  void finish_hashes(Op& op) const;
  const std::shared_ptr<const Settings>& settings_now(const OperatorFacts& facts);
  void note_stream(Op& op);
  uint64_t place_of(const OperatorFacts& facts, size_t argument) const;  // of what the next Op reads there
  // ---- where it does what the last Pass did (repeated.cpp) ----
  bool run_repeated(const c10::OperatorHandle& called, const OperatorFacts& facts, c10::DispatchKeySet keys, torch::jit::Stack* stack);  // false: it does not
  bool repeats() const;
  bool book_repeated(Op& op, const torch::jit::Stack& stack);  // false: it made no Value
  double op_clock(const Op& op) const;                         // seconds; what the Op takes is a difference of two
  double added_clock() const;

  mutable std::mutex mutex_;
  PassOptions options_;
  std::unique_ptr<Recording> recording_memory_;
  OpLog& ops_;
  std::vector<Value>& values_;
  StorageMap& current_;
  std::vector<TraceEvent> events_;
  std::mutex events_mutex_;                              // a leaf
  std::vector<int32_t> watched_;                         // held Values whose kGone is still to come
  std::mutex sources_mutex_;                             // of the next two; a leaf: frees happen under other locks
  std::atomic<bool> sources_freed_{false};               // there are some in freed_sources_
  AddressFilter& watched_addresses_;                     // in front of sources_at_
  std::unordered_map<const void*, int32_t> sources_at_;  // address -> Value without a producer that is read by Ops that can run again
  std::vector<int32_t> freed_sources_;                   // of those: their memory was freed since heed_emptied()
  std::shared_ptr<const Settings> settings_;
  double added_seconds_ = 0;
  int64_t group_dropped_bytes_ = 0;
  int group_dropped_values_ = 0;
  int64_t copied_input_bytes_ = 0;
  int32_t group_ = 0;
  std::unordered_map<c10::StorageImpl*, int32_t> whole_;  // storages of saved tensors that are no Value's business -> how many
  int32_t broken_at_ = kNever;                            // the first Op that is not the Trace's: what the Plan says of earlier ones still holds
  std::atomic<bool> recording_{true}, backward_seen_{false};
  std::atomic<int64_t> live_handles_{0};
  std::atomic<bool> saved_anything_{false};
  std::atomic<int> task_{-1};
  bool chosen_ = false;
  std::optional<c10::Stream> stream_;  // of the first Op
  bool many_streams_ = false;
  bool caught_ = false;                // R11 found an unseen write
  int64_t overflow_start_bytes_ = -1;  // in the temporary file when it was allowed; -1: it was not
  bool only_measured_ = false;
  std::atomic<int64_t> revoked_bytes_{0};
  std::unique_ptr<DeviceClock> clock_;  // on a device, where Ops are measured
  Replay* running_ = nullptr;
  std::atomic<std::thread::id> replaying_{};
};

uint64_t fingerprint_of(const c10::Storage& storage);
double now_seconds();
double thread_cpu_seconds();
int current_task();  // of autograd, in this thread; -1 outside backward

}  // namespace reprise::engine
