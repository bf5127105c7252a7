// Learned: what was found out about the steps of a program, as one JSON document, so that a run in another process begins where this one is.
//
// L1  one step is told from another by its key (what its first Op is and reads); its Ops by their hashes, in order, one per Op of its Profile
// L2  every Plan of a step's Frontier is one for its Profile (check_plan)
// A program that does something else than what was learned leaves the Plan at the first Op that differs, and is learned anew, as ever.
// Threads: plain values. Failure: std::invalid_argument "Learned JSON: <field>: <value>, <limit>", or what a Profile's or a Plan's reader says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "policy/planner.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

struct LearnedStep {
  uint64_t key = 0;
  std::vector<uint64_t> match;
  int64_t start_live_bytes = 0;  // at the start of the Pass that it was learned from
  bool derived = false;          // worked out from another step, and not seen so far
  bool settled = false;          // measured under a Plan too
  Profile profile;
  Frontier frontier;  // all Plans found
};

struct Learned {
  static constexpr int32_t kVersion = 1;
  std::vector<LearnedStep> steps;
  std::vector<uint64_t> caught;  // places of unseen writes (R11)

  std::string to_json() const;
  static Learned from_json(const std::string& text);
};

}  // namespace reprise::engine
