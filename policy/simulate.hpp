// Simulate: runs a planned Pass event by event over real allocator code on a device in arithmetic, and says what it needs.
//
// S1  order and sizes of all allocations and frees are those the engine will make: the program's own, kept and dropped Values, replays Op by Op
// S2  a kept Value goes when it is gone, released, and the last Group that reads it has run; a retained one when it is released and no later Group reads it
// S3  at the n-th time that a Value is not there when backward asks for it, the n-th Group with that trigger runs
// S4  a packed form is taken at the end of its Value's last maker and goes when the Value is released and the last Group that reads or unpacks it has run
// Failure: std::invalid_argument when the Plan leaves something missing (a Source that is not there, an unpack without a Group).
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "allocator/planned_step.hpp"
#include "allocator/types.hpp"
#include "policy/plan.hpp"
#include "profiler/profile.hpp"

namespace reprise {

// Where the simulated Pass takes its memory from.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual void* take(int64_t bytes) = 0;
  virtual void give(void* pointer, int64_t bytes) = 0;
  virtual void begin_pass() {}  // what was taken so far was there before it
};

struct Simulated {
  int64_t peak_live_bytes = 0;      // above the Pass's start
  int64_t peak_reserved_bytes = 0;  // above the same start
  int64_t end_live_bytes = 0;
  int64_t replayed_ops = 0;
};

void execute(const Plan& plan, const Profile& profile, Memory& memory, Simulated& counts);  // fills live bytes and replayed Ops

// How the heap looks when the Pass begins: (offset from a page's start, rounded bytes) of the live pieces, ascending. Holes between them may serve the Pass, or be too small.
using StartLayout = std::vector<std::pair<int64_t, int64_t>>;

// How a core cuts its memory. As it stands: the CPU's.
struct HeapShape {
  size_t page_bytes = 4096;  // what the device commits and gives back
  size_t rounding_bytes = AllocatorOptions{}.rounding_bytes;
  size_t small_limit_bytes = AllocatorOptions{}.small_limit_bytes;
  bool caches = AllocatorOptions{}.caches;
  bool places = true;  // a Pass may be served from a region, at places worked out beforehand (step_placement.hpp)
};

// On CachingAllocator over SimulatedDevice, in that shape. The Plan's limit is the cap, as in training: free pages are given back before it is exceeded;
// reserved bytes above the limit mean that even this was not enough. `placed`: its region serves the Pass, where it fits (step_placement.hpp).
Simulated simulate(const Plan& plan, const Profile& profile, const StartLayout& start = {}, const HeapShape& heap = {},
                   const std::shared_ptr<const PlannedStep>& placed = nullptr);

}  // namespace reprise
