// Random programs over several streams, run on the simulated device: memory that another stream may still use must not be handed out. Whether an allocation
// came too early is asked of the device's vector clocks, which know what comes after what; the allocator never sees them.
//
// A mutant is a device that forgets a wait: programs must find it (a check that finds nothing shows nothing).
// A failing program is made small and prints itself as source.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "allocator/caching_allocator.hpp"

namespace reprise::testing {

enum class StreamKind { kAllocate, kFree, kUse, kComplete, kWait, kTrim, kCap };

struct StreamOperation {
  StreamKind kind = StreamKind::kAllocate;
  std::size_t slot = 0;   // which of the program's pointers
  std::size_t bytes = 0;  // kAllocate: size; kCap: the cap
  StreamId stream = 0;    // kWait: it waits for `other`
  StreamId other = 0;
};
using StreamProgram = std::vector<StreamOperation>;

// What the device forgets: passed() says yes at once, wait() returns at once, a fence is recorded too early (before the last work).
enum class Forgotten { kNothing, kPassed, kWait, kFence };

struct StreamSetting {
  AllocatorOptions options;
  std::size_t page_bytes = std::size_t{2} << 20;
  std::size_t capacity_bytes = std::size_t{1} << 26;
  Forgotten forgotten = Forgotten::kNothing;
};

struct StreamOutcome {
  std::string wrong;            // empty, or what was
  std::size_t allocations = 0;  // that succeeded
  std::size_t reused = 0;       // allocations over memory that had been used before
  std::size_t crossed = 0;      // of those, used before by another stream
};

StreamProgram random_stream_program(std::uint64_t seed, std::size_t operations);
StreamSetting stream_setting(std::uint64_t number);  // one of those that programs are run under, in turn
StreamOutcome run(const StreamProgram& program, const StreamSetting& setting);
StreamProgram minimised(StreamProgram program, const StreamSetting& setting);
std::string as_source(const StreamProgram& program);

}  // namespace reprise::testing
