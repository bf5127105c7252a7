// Random allocator programs, run against an obviously right reference: a map of disjoint intervals.
// A failing program is made small and prints itself as source that can be pasted into a test.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "allocator/caching_allocator.hpp"

namespace reprise::testing {

enum class Kind { kAllocate, kFree, kTag, kTrim, kCap, kUncap, kPlan, kEndPlan };

struct Operation {
  Kind kind = Kind::kAllocate;
  std::size_t slot = 0;  // which of the program's pointers
  std::size_t bytes =
      0;  // kAllocate: size; kCap: room above reserved; kPlan: how many operations, and which mistakes about them; kEndPlan: 1 in 4 is not parked
};
using Program = std::vector<Operation>;

struct Setting {
  AllocatorOptions options;
  bool host = true;                      // else simulated with 4 KiB pages
  std::size_t capacity_bytes = 1 << 24;  // of the simulated device
  std::size_t check_every = 997;
};

Program random_program(std::uint64_t seed, std::size_t operations);
Program repeating_program(std::uint64_t seed,
                          std::size_t operations);  // as training does: a planned step again and again, with a few live pieces and a change here and there
std::string run(const Program& program, const Setting& setting, Statistics* last = nullptr);  // empty, or what went wrong
Program minimised(Program program, const Setting& setting);
std::string as_source(const Program& program);

}  // namespace reprise::testing
