// Profile: a Trace reduced to what planning needs. An immutable value with one JSON form; knows nothing of torch, addresses or threads.
//
// Words: a Profile Value is one *storage* (its last version stands for all of them, so an in-place chain is one Value with several makers);
// a buffer is any other memory of the program (temporaries, gradients, outputs that no recorded Op makes). Ops keep the numbers they have in the Trace.
//
// Invariants (checked when a Profile is made; violated number in the message)
//   F1  every Op, Value, buffer and Region index is in range; no byte count is negative; every number is finite
//   F2  makers are in increasing order; a Value that no Op may make again has must_keep
//   F3  an Op reads only Values whose last maker comes before it; reads holds each Value once
//   F4  steps: a Value is made once, before its other steps; is gone at most once, released at most once and not unpacked after that;
//       a buffer is allocated once (not at all if it is one of the first `outside_buffers`) and freed at most once, later;
//       every Op has one kOpBegin, then one kOpEnd, and no two Ops overlap; there is at most one kForwardEnd
//   F5  Values have distinct, valid Trace numbers
//   F6  a packed form has fewer bytes than its Value, which an Op makes and which need not be kept; without one there is nothing to know of it
// Threads: none; a const Profile may be read by any number of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "profiler/trace.hpp"

namespace reprise {

struct ProfileOp {
  std::string name;
  std::vector<int32_t> reads;  // Profile Values read, in order of first use; what the Op itself makes is not among them
  double forward_seconds = 0;  // median over the Passes seen and all Ops of equal signature
  double replay_seconds = 0;   // the same; 0: never replayed so far
  int64_t flops = 0;
  int64_t gradient_flops = 0;  // of its backward: useful work only (flops.hpp)
  int64_t rise_bytes = 0;      // highest level inside the Op above that at its start, outputs included
  uint64_t signature = 0;
  int32_t region = 0;
  bool replayable = true;  // false: opaque, or it reads something that is overwritten later
  bool operator==(const ProfileOp&) const = default;
};

struct ProfileValue {
  int32_t trace_value = 0;      // number of its last version in the Trace: what Plans speak of
  int64_t bytes = 0;            // 0: nothing, or part of a storage that existed before the Pass
  std::vector<int32_t> makers;  // Ops that write it, first to last; empty: cannot be made again
  bool saved = false;
  bool must_keep = false;  // kept by every Plan (held as a Source even when not saved)
  std::string reason;      // why must_keep
  PackingFacts packed;     // the short form it may be held in instead
  bool operator==(const ProfileValue&) const = default;
};

enum class StepKind : uint8_t { kAllocate, kFree, kMake, kGone, kUnpack, kRelease, kOpBegin, kOpEnd, kForwardEnd };

struct Step {
  StepKind kind = StepKind::kForwardEnd;
  int32_t id = 0;  // buffer (kAllocate, kFree), Value (kMake … kRelease), Op (kOpBegin, kOpEnd), 0
  bool operator==(const Step&) const = default;
};

struct RegionRow {
  std::string name;
  int64_t saved_bytes = 0;  // of Values whose last maker lies in the Region
  double forward_seconds = 0;
  double replay_seconds = 0;  // as learned; forward seconds where never replayed
  int64_t flops = 0;
  bool operator==(const RegionRow&) const = default;
};

struct ProfileData {
  uint64_t trace_signature = 0;
  int32_t trace_values = 0;  // Plan::value_count
  std::vector<ProfileOp> ops;
  std::vector<ProfileValue> values;
  std::vector<int64_t> buffers;  // bytes per buffer
  int32_t outside_buffers = 0;   // the first so many existed before the Pass and are freed in it
  std::vector<Step> steps;       // the Pass as it runs when everything saved is kept and nothing is replayed
  std::vector<std::string> regions = {""};
  int64_t start_live_bytes = 0;
  double pass_seconds = 0;
  int32_t threads = 1;
  int32_t passes = 1;                       // Passes whose seconds went in
  std::vector<std::vector<float>> samples;  // per Op: forward seconds of up to kMaxSamples Passes, the oldest first
  std::vector<std::vector<float>> replay_samples;
  bool operator==(const ProfileData&) const = default;
};

class Profile {
 public:
  static constexpr int32_t kVersion = 3;
  static constexpr size_t kMaxSamples = 9;

  static Profile from_trace(const Trace& trace);      // throws std::invalid_argument naming the violated invariant
  static Profile from_json(const std::string& text);  // throws std::invalid_argument naming field, value and limit
  explicit Profile(ProfileData data);                 // checks F1 … F6

  std::string to_json() const;  // with version and checksum
  const ProfileData& data() const { return data_; }
  const std::vector<ProfileOp>& ops() const { return data_.ops; }
  const std::vector<ProfileValue>& values() const { return data_.values; }
  const std::vector<Step>& steps() const { return data_.steps; }
  std::vector<RegionRow> regions() const;  // one row per Region that has an Op, in the Trace's order
  // Seconds of each Op when it runs again: learned, else forward seconds × the mean ratio of its name, else × that of all, else forward seconds.
  std::vector<double> replay_seconds() const;
  int64_t saved_bytes() const;
  int64_t flops() const;         // of one forward
  int64_t useful_flops() const;  // of one forward and the gradients that are asked for
  bool operator==(const Profile&) const = default;

 private:
  ProfileData data_;
};

// Seconds of one more Pass of the same step, per Op; 0: not measured, or not run again.
struct PassSeconds {
  std::vector<double> forward, replay;
};

// With one Pass more in the medians. Everything else stays as it was. Throws std::invalid_argument for seconds of another number of Ops.
Profile refine(const Profile& profile, const PassSeconds& later);

// The step as `later` saw it: its lifetimes and seconds; of `first` replay seconds where `later` replayed nothing, and packed forms where it packed nothing.
// Throws std::invalid_argument for another step.
Profile settled(const Profile& first, const Trace& later);

// The same without the packed forms of these Values (Trace numbers): their content turned out not to fit them.
Profile without_packing(const Profile& profile, const std::vector<int32_t>& trace_values);

}  // namespace reprise
