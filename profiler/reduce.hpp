// Reducer: Trace -> ProfileData. One object per reduction, used once; Profile::from_trace is the door.
//
// What it decides: which Trace Values share a storage (an in-place chain is one Profile Value), which Ops may run again, what must be kept
// and why, and which bytes belong to the program whatever a Plan says (everything that is no planned Value and no replay's).
// Cost: linear in events, near linear in Values. Failure: std::invalid_argument from Trace::validate.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "profiler/profile.hpp"
#include "profiler/trace.hpp"

namespace reprise {

class Reducer {
 public:
  explicit Reducer(const Trace& trace);
  ProfileData run();

 private:
  struct Allocation {
    int64_t bytes = 0;
    int32_t begin = -1;   // event; -1: existed before the Pass
    int32_t end = -1;     // event; -1: lives on
    bool replay = false;  // asked for by a replay
    int32_t root = -1;    // Trace Value chain that lives in it
    int32_t buffer = -1;
  };
  struct Chain {  // all versions of one storage; indexed by the last version
    int32_t allocation = -1;
    int32_t born = -1, gone = -1, release = -1, first_unpack = -1, last_unpack = -1;  // events
    int32_t value = -1;                                                               // Profile Value
    bool planned = false;                                                             // made in this Pass: a Profile Value
    bool outside = false;                                                             // its storage existed before the Pass
    bool saved = false;
    bool old_version_saved = false;
    std::string reason;  // why it must be kept
    std::vector<int32_t> makers;
  };

  void unite_versions();
  void scan_events();
  void scan_event(int32_t position, const TraceEvent& event, bool in_replay);
  void on_allocate(int32_t position, const TraceEvent& event, bool in_replay);
  void on_free(int32_t position, const TraceEvent& event, bool in_replay);
  void on_born(int32_t position, const TraceEvent& event);
  void find_chains();
  void find_replayable_ops();
  bool may_run_again(int32_t op) const;
  void decide_what_must_stay();
  void number_values();
  void fill_ops();
  void fill_rises();
  void number_buffers();
  void fill_steps();
  int32_t last_version(int32_t value);
  Chain& chain(int32_t value) { return chains_[static_cast<size_t>(last_version(value))]; }
  const Chain& chain_at(int32_t value) const { return chains_[static_cast<size_t>(final_[static_cast<size_t>(value)])]; }

  const Trace& trace_;
  ProfileData out_;
  std::vector<int32_t> final_;  // per Trace Value: the last version in its storage
  std::vector<Chain> chains_;   // per Trace Value; only last versions are filled
  std::vector<Allocation> allocations_;
  std::vector<int32_t> allocation_of_;        // per event: the Allocation it starts or ends, or -1
  std::vector<int32_t> allocation_of_value_;  // per Trace Value
  std::unordered_map<int64_t, int32_t> live_;
  std::vector<int32_t> op_begin_, op_end_;  // events
  std::vector<bool> replayable_;
};

}  // namespace reprise
