// Plan: what to hold and what to replay in one Pass. An immutable value with one JSON form; the engine executes it, nothing in it refers to torch.
//
// Words: a Source is a Value held so that others can be replayed from it; a Group is a set of Values replayed together, when the first of them
// is needed (its trigger), and held until the last of them is released.
//
// Invariants (checked by Plan::validate; violated number in the message)
//   P1  Value indices are in [0, value_count), Op indices in [0, op_count)
//   P2  a Group's ops are in increasing order, each once
//   P3  every Value that a Group's ops read is made by an earlier op of the Group, unpacked by it, one of its sources, or lies outside the Pass
//   P4  trigger is an element of retain; every retained Value is made by one of the Group's ops or unpacked by it; without ops it unpacks the trigger
//   P5  `keep` is sorted and holds every Value named as a source that no earlier Group retains
//   P6  `pack` is sorted and disjoint from `keep`; Groups unpack nothing else
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "profiler/packing.hpp"

namespace reprise {

struct Group {
  int32_t trigger = 0;           // Value whose unpack starts the Group, if it is not there
  std::vector<int32_t> ops;      // Trace ops to run again, in order
  std::vector<int32_t> retain;   // Values to hold afterwards, each until its last saved tensor or the last Group that reads it is through
  std::vector<int32_t> sources;  // Values read that the Group does not make; held (kept, or retained by an earlier Group) when it runs
  std::vector<int32_t> unpack;   // Values that the Group has from their packed form: the trigger, or each before the first op that reads it
};

// A Value held in its packed form: packed when its last maker has run (if its content fits the form; else it is kept), until its last saved tensor and the last
// Group that unpacks it are through.
struct PackedValue {
  int32_t value = 0;
  Packing form = Packing::kBits;
  auto operator<=>(const PackedValue&) const = default;
};

struct Plan {
  static constexpr int32_t kVersion = 2;
  std::string scheme;            // "none", "full", "chunks(8)", "chunks(8, hold_inside=False)", "sqrt", "per_block", "auto"
  uint64_t trace_signature = 0;  // Trace it was made for
  int32_t value_count = 0;
  int32_t op_count = 0;
  std::vector<int32_t> keep;             // saved Values kept, and Values held as Sources (saved or not)
  std::vector<PackedValue> pack;         // Values packed instead
  std::vector<Group> groups;             // in the order in which backward triggers them; a Value may trigger several
  int64_t limit_bytes = 0;               // activation bytes allowed (above the live bytes at the Pass's start); 0: no limit
  int64_t predicted_live_bytes = 0;      // peak live bytes above the Pass's start
  int64_t predicted_reserved_bytes = 0;  // peak reserved bytes of the allocator core on the simulated device, above the same start
  double added_seconds = 0;              // predicted seconds of everything that runs again, packing and unpacking included
  double lower_bound_seconds = 0;        // no schedule within the limit adds less; 0 where no bound was computed

  void validate() const;                           // throws std::invalid_argument naming the violated invariant
  std::string to_json() const;                     // with version and checksum
  static Plan from_json(const std::string& text);  // throws std::invalid_argument naming field, value and limit
};

}  // namespace reprise
