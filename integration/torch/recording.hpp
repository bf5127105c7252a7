// What a Pass books: its Ops, its Values, and which storage shows which Value. Memory of all of it is handed on from Pass to Pass, so that a step that
// repeats is recorded without allocating, and an Op that does the same as the one that lay in its place is taken over as it is (repeated.cpp).
//
// Words and invariants: pass.hpp. Threads: plain values, guarded by their Pass's mutex; the pool behind Recording::take() has a mutex of its own, a leaf.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/Storage.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "integration/torch/conditions.hpp"
#include "integration/torch/operator_facts.hpp"
#include "integration/torch/streams.hpp"
#include "integration/torch/tensor_view.hpp"
#include "profiler/packing.hpp"
#include "profiler/trace.hpp"

namespace reprise::engine {

inline constexpr int32_t kNever = INT32_MAX;
inline constexpr int32_t kMetadata = -2;  // Ref::value of an argument whose shape is read and not its content

struct Ref {
  int32_t value = -1;
  bool gradient = false;  // autograd asks for it
  Geometry geometry;
};

struct Slot {  // one argument of a recorded call
  enum class Kind : uint8_t { kPlain, kTensor, kTensorList, kOptionalList };
  Kind kind = Kind::kPlain;
  c10::IValue plain;
  std::vector<Ref> refs;  // kOptionalList: value -1 where the list has a hole
  void clear() {
    kind = Kind::kPlain;
    plain = c10::IValue();
    refs.clear();
  }
};

struct Op {
  c10::OperatorHandle handle;
  c10::DispatchKeySet keys;  // what the dispatcher had left to do: a replay enters at the same place
  const OperatorFacts* facts = nullptr;
  std::vector<Slot> arguments;
  std::vector<int32_t> made;                   // per returned tensor: the new Value, or -1 (view, in-place result, undefined)
  std::vector<std::pair<int, int32_t>> wrote;  // (argument, Value after) for arguments written in place
  at::Generator generator;                     // state before the call, where it draws random numbers (R5)
  at::Generator spare_generator;               // of the Op that lay here before
  bool draws_from_default = false;             // takes no generator: the device's default one is set to that state (CUDA)
  std::optional<c10::Stream> stream;           // that it ran on; none on the CPU (R12)
  std::shared_ptr<const Settings> settings;
  const char* opaque_reason = nullptr;
  bool hidden_write = false;  // its hidden writes happened (R6)
  double forward_seconds = 0;
  double replay_seconds = 0;
  void saw_replay(double seconds) { replay_seconds = replay_seconds > 0 ? std::min(replay_seconds, seconds) : seconds; }
  uint64_t match = 0;                                    // operator, Values read, shapes, bytes made: equal in every repetition of the same step
  uint64_t signature = 0;                                // the same without the Values: equal for equal work at another place
  uint64_t structure = 0;                                // the same as match without shapes and bytes: equal in the same step at another size
  std::vector<int32_t> reads;                            // filled while tracing: the Values of the Refs
  std::vector<uint8_t> gradients;                        // filled while tracing: of those, whose gradient is asked for
  std::vector<TensorShape> input_shapes, output_shapes;  // filled while tracing
  std::vector<int64_t> integers;
  bool repeatable = false;  // a function of its arguments without writes, random numbers or anything but tensors and plain numbers
  uint64_t made_hash = 0;   // of `made` and the bytes of those Values

  Op(const c10::OperatorHandle& op, c10::DispatchKeySet left, const OperatorFacts& known) : handle(op) { begin(op, left, known); }
  void begin(const c10::OperatorHandle& op, c10::DispatchKeySet left, const OperatorFacts& known);  // as new, in the memory it has
  void forget();                                                                                    // lets go of all that others could miss
};

// Ops in the order in which they were recorded. What is handed out is no part of it until it is added: a kernel may call back into the recorder.
class OpLog {
 public:
  const Op* expected() const { return ops_.size() < last_.size() ? last_[ops_.size()].get() : nullptr; }  // what the last Pass had in the place of the next one
  void fetch_ahead() const {  // into the processor's cache while a kernel runs: what the next two calls will be compared with
    const size_t next = ops_.size() + 1;
    if (next + 1 < last_.size()) __builtin_prefetch(last_[next + 1].get());
    if (next < last_.size() && last_[next]) __builtin_prefetch(last_[next]->arguments.data());
  }
  std::unique_ptr<Op> take_expected() { return std::move(last_[ops_.size()]); }
  std::unique_ptr<Op> make(const c10::OperatorHandle& op, c10::DispatchKeySet left, const OperatorFacts& known);
  void add(std::unique_ptr<Op> op) { ops_.push_back(std::move(op)); }
  void put_back(std::unique_ptr<Op> op) { spare_.push_back(std::move(op)); }  // it made nothing
  void clear();                                                               // they are what the next Pass is expected to do

  size_t size() const { return ops_.size(); }
  Op& operator[](size_t i) { return *ops_[i]; }
  const Op& operator[](size_t i) const { return *ops_[i]; }
  const Op& back() const { return *ops_.back(); }

  class Iterator {
   public:
    explicit Iterator(const std::unique_ptr<Op>* at) : at_(at) {}
    const Op& operator*() const { return **at_; }
    Iterator& operator++() { return ++at_, *this; }
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    const std::unique_ptr<Op>* at_;
  };
  Iterator begin() const { return Iterator(ops_.data()); }
  Iterator end() const { return Iterator(ops_.data() + ops_.size()); }

 private:
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<std::unique_ptr<Op>> last_;   // of the Pass before, by place; those that are taken are null
  std::vector<std::unique_ptr<Op>> spare_;  // of no use but their memory
};

// What is known of a Value's packed form in this Pass.
struct Packed {
  PackingFacts facts;    // found while learning, or of the form that is there
  PackedForm form;       // with content
  c10::Storage content;  // the packed bytes: the Value can be had from them at any time
  bool refused = false;  // a Plan wanted it packed, and its content did not fit: it is kept
};

struct Value {
  int32_t producer = kNoOp;  // Op that can make it again
  int64_t bytes = 0;
  int32_t item_bytes = 0;  // an element, as the tensor shows it that made the Value
  std::unique_ptr<Packed> packed;
  int32_t handles = 0;                                                                        // saved tensors that still need it
  int32_t reads_left = 0;                                                                     // planned Groups still to come that read it as a Source
  int32_t unpacks_left = 0;                                                                   // planned Groups still to come that unpack it for their Ops
  int32_t triggered = 0;                                                                      // Groups it has triggered so far
  int32_t next = -1;                                                                          // the Value that overwrote it in the same storage
  int32_t readers = 0;                                                                        // recorded, replayable Ops that read it
  int32_t group = 0;                                                                          // of the learning Pass
  int32_t memo_task = -1;                                                                     // autograd task that replayed it
  c10::weak_intrusive_ptr<c10::StorageImpl> storage{c10::intrusive_ptr<c10::StorageImpl>()};  // the program's; pins the address
  std::shared_ptr<const Ready> ready;                                                         // of a replayed one, where there are streams
  c10::Storage held;                                                                          // kept, replayed or copied
  bool held_is_private = false;                                                               // held is ours alone: replayed or copied
  bool outside = false;                                                                       // existed before the Pass
  bool saved = false;
  bool uninitialised = false;  // shows what the memory happened to hold
  bool slack = false;          // not comparable: its storage has bytes that no tensor shows (mse_loss allocates too much), or a collective may still write it
  bool in_use = false;         // read by the replay that runs
  bool emptied = false;        // its storage was resized to nothing, to be brought back later (a parameter that FSDP gathers for as long as it is used)
  int32_t stranded_by = -1;    // the emptied Value that it was made with: whatever reads it from then on finds it kept
  bool lost = false;           // overwritten where nobody could see it, and read before that: a replay that needs it raises
  bool has_fingerprint = false;
  const char* keep_reason = nullptr;  // why no Plan may drop it
  uint64_t place = 0;                 // outside: where it was first read
  uint64_t fingerprint = 0;           // of its content (R11)
  const void* watched_at = nullptr;   // where it lies as a Source whose emptying is looked for (sharded.cpp)
  Version version;                    // outside: to be checked at replay
};

// Which Value a storage shows. Open addressing over addresses: a storage that is in here does not die (weak references pin it), so nothing is ever erased.
class StorageMap {
 public:
  int32_t find(const c10::StorageImpl* storage) const {  // -1: none
    for (size_t at = place_of(storage);; at = (at + 1) & mask()) {
      if (cells_[at].storage == storage) return cells_[at].value;
      if (!cells_[at].storage) return -1;
    }
  }
  void set(const c10::StorageImpl* storage, int32_t value);
  void clear();

 private:
  struct Cell {
    const c10::StorageImpl* storage = nullptr;
    int32_t value = -1;
  };
  size_t mask() const { return cells_.size() - 1; }
  size_t place_of(const c10::StorageImpl* storage) const {  // Fibonacci hashing; the upper bits, for the lower ones of an address say little
    return size_t((uint64_t(reinterpret_cast<uintptr_t>(storage)) * 0x9e3779b97f4a7c15ull) >> 32) & mask();
  }
  std::vector<Cell> cells_ = std::vector<Cell>(1024);  // a power of two, at most half full
  size_t used_ = 0;
};

// May an address be one of those that were added? False only if it is not. Any thread, no lock: an address is added while its memory is alive, and asked for
// when it is freed.
class AddressFilter {
 public:
  void add(const void* address) { words_[place(address)].fetch_or(bit(address), std::memory_order_relaxed); }
  bool may_hold(const void* address) const { return words_[place(address)].load(std::memory_order_relaxed) & bit(address); }

  void clear() {
    for (auto& word : words_) word.store(0, std::memory_order_relaxed);
  }

 private:
  static uint64_t hash(const void* address) { return uint64_t(reinterpret_cast<uintptr_t>(address)) * 0x9e3779b97f4a7c15ull; }
  static size_t place(const void* address) { return size_t(hash(address) >> 58); }
  static uint64_t bit(const void* address) { return uint64_t{1} << ((hash(address) >> 52) & 63); }
  std::array<std::atomic<uint64_t>, 64> words_{};
};

struct Recording {
  OpLog ops;
  std::vector<Value> values;
  StorageMap current;
  AddressFilter watched;

  static std::unique_ptr<Recording> take();                   // an empty one, of an earlier Pass if there is one
  static void give_back(std::unique_ptr<Recording> through);  // cleared, and kept for the next Pass
  static void drop_spare();                                   // those that nobody uses
};

}  // namespace reprise::engine
