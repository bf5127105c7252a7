// The classic ladder by name, in keep / memo / cut terms. N Blocks, C chunks; memory in Block outputs, work in Block forwards that run again (chain):
//   none                            memory N               work 0
//   full                            memory 1 … 2           work N (N + 1) / 2, or N (N - 1) / 2 where no Block's own output is needed
//   chunks(C)                       memory C + N / C       work <= N
//   chunks(C, hold_inside=False)    memory C + 2           work about N^2 / (2 C)
//   sqrt, sqrt(hold_inside=False)   the same with C = round(sqrt(N))
//   per_block                       inputs of Blocks and what lies outside Blocks kept; each Block replayed when its backward comes
//   random(SEED)                    a valid plan drawn at random, for fuzzing
//   auto                            the planner's
// What lies before the first Block belongs to the first chunk, what comes after the last Block to the last.
#pragma once

#include <cstdint>
#include <string>

#include "policy/blocks.hpp"
#include "policy/pricer.hpp"

namespace reprise {

struct Scheme {
  enum class Kind : uint8_t { kNone, kFull, kChunks, kSqrt, kPerBlock, kRandom, kAuto };
  Kind kind = Kind::kNone;
  int64_t count = 0;  // chunks, or the seed
  bool hold_inside = true;

  static Scheme parse(const std::string& name);  // throws std::invalid_argument naming argument, value and limit
  std::string name() const;                      // canonical: parse(name()) gives the same
};

Choice choose(const Scheme& scheme, const Instance& instance, const std::vector<Block>& blocks);  // not for auto

// Price of a named scheme as a Plan; not for "auto", which needs a limit.
Plan scheme_plan(const Profile& profile, const std::string& name);

}  // namespace reprise
