// Trace: what the recorder saw in one Pass, in order. A plain value: no torch, no pointers, no threads.
//
// Words: an Op is one executed operator below autograd; a Value is one version of one storage's content; "saved" means that
// autograd keeps it for backward. Values and Ops are numbered from 0 in order of creation; the numbers are what Plans speak of.
//
// Invariants (checked by Trace::validate, violated number in the message)
//   T1  every Value index in an Op is in [0, values.size()), every Region index in [0, regions.size())
//   T2  producer == kNoOp for a Value that came from outside (parameters, inputs) or that must not be made again (see `opaque`)
//   T3  an Op's outputs name it as their producer, or have producer kNoOp
//   T4  events are in time order; kBorn names an address that a preceding kAllocate gave (or one that existed before the Pass)
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "profiler/packing.hpp"

namespace reprise {

inline constexpr int32_t kNoOp = -1;

struct TensorShape {
  std::vector<int64_t> sizes;
  int32_t item_bytes = 4;
};

struct TraceOp {
  std::string name;                                     // schema name without overload, "aten::addmm"
  std::vector<int32_t> inputs;                          // Values read, recorded and outside ones, in argument order, repeats kept
  std::vector<int32_t> outputs;                         // fresh Values, in the order of the returns
  std::vector<std::pair<int32_t, int32_t>> overwrites;  // (Value before, Value after) for arguments written in place
  std::vector<TensorShape> input_shapes;                // one per entry of `inputs`
  std::vector<uint8_t> input_gradients;                 // one per entry of `inputs`: autograd asks for its gradient. Empty: not known
  std::vector<TensorShape> output_shapes;               // one per tensor returned (views and in-place results too)
  std::vector<int64_t> integers;                        // integer and boolean arguments flattened in schema order (groups, transposed, causal …)
  double forward_seconds = 0;                           // seconds of the kernel when recorded
  double replay_seconds = 0;                            // seconds when replayed; 0: never replayed so far
  uint64_t signature = 0;                               // operator, shapes, dtypes and plain arguments; equal Ops are interchangeable
  int32_t region = 0;                                   // index into Trace::regions
  bool random = false;                                  // draws random numbers
  bool opaque = false;                                  // not known to be a pure function of its arguments: never run twice
};

struct TraceValue {
  int64_t bytes = 0;         // of the storage
  int32_t producer = kNoOp;  // Op that makes it, or kNoOp: outside, or never to be made again
  bool outside = false;      // existed before the Pass (its bytes are part of the start level)
  bool saved = false;        // autograd keeps it
  bool must_keep = false;    // droppable by no Plan; `reason` says why
  PackingFacts packed;       // its content's short form, where it was looked at and has one
  std::string reason;        // "", or "opaque operator", "written where nobody could see it", …
};

enum class Mark : uint8_t {
  kAllocate,     // a: address, b: bytes requested
  kFree,         // a: address, b: bytes requested
  kOpBegin,      // a: Op (the last kOpBegin of a number counts: operators that make no Value share the next one's number)
  kOpEnd,        // a: Op
  kBorn,         // a: Value, b: address of its storage
  kSaved,        // a: Value (autograd packs it)
  kGone,         // a: Value: the forward and the user have let go of it; only saved tensors or Sources hold it from here on
  kForwardEnd,   // the first unpack of the Pass follows
  kUnpack,       // a: Value (autograd asks for it)
  kRelease,      // a: Value: its last saved tensor is released
  kReplayBegin,  // a: Value that triggered the replay, -1: a copy of the recorder's own. Allocations up to kReplayEnd are not the program's
  kReplayEnd,
  kPassEnd
};

struct TraceEvent {
  Mark mark = Mark::kPassEnd;
  int64_t a = 0;
  int64_t b = 0;
};

struct Trace {
  std::vector<TraceOp> ops;
  std::vector<TraceValue> values;
  std::vector<TraceEvent> events;
  std::vector<std::string> regions = {""};  // [0] is the whole model
  std::vector<int32_t> held;                // Values that the recorder itself held as Sources in this Pass (their frees are not the program's)
  uint64_t signature = 0;                   // of the whole op sequence
  int64_t start_live_bytes = 0;             // live on the device when the Pass began (parameters, gradients, optimizer state, inputs …)
  double pass_seconds = 0;                  // wall seconds of forward and backward together, replays included
  int32_t threads = 1;                      // intra-op threads during the Pass

  void validate() const;  // throws std::invalid_argument naming the violated invariant
};

}  // namespace reprise
