// Placement: offsets for allocations whose lifetimes are known, so that what is reserved comes near to what is live.
//
// Words. Peak: the most bytes that are live at one time, sizes rounded; no placement needs less. Total: the end of the highest allocation.
//
// L1  two allocations that are alive at the same time share no byte
// L2  every offset and every rounded size is a multiple of the alignment; peak <= total
// Work is counted in looks at other allocations, never in seconds: equal input gives equal offsets on every machine.
//
// Cost: one greedy pass takes milliseconds for thousands of allocations, 0.1 s for 20,000. Failure: std::invalid_argument for input that makes no sense.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace reprise {

// Alive over [birth, death) in whatever counts time.
struct Lifetime {
  int64_t bytes = 0;
  int64_t birth = 0;
  int64_t death = 0;
};

struct PlacementOptions {
  int64_t alignment = 64;      // a power of two
  int64_t enough_bytes = 0;    // a total that is not worth improving; at least the peak
  int64_t looks = 50'000'000;  // beyond the first greedy passes
};

struct Placement {
  std::vector<int64_t> offsets;  // one for each Lifetime
  int64_t total_bytes = 0;
  int64_t peak_bytes = 0;
};

// Greedy passes in several orders; then the best of them again and again with what ends too high moved forward; then, where there are few enough
// allocations, a search for a placement that ends at `enough_bytes` (placement_search.hpp).
Placement place(const std::vector<Lifetime>& lifetimes, const PlacementOptions& options = {});

int64_t peak_bytes(const std::vector<Lifetime>& lifetimes, int64_t alignment = 1);
// "", or the first pair that overlaps, or what else is wrong. Works with a map of what is live, event by event: shares no code with place().
std::string check_placement(const std::vector<Lifetime>& lifetimes, const Placement& placement, int64_t alignment);

}  // namespace reprise
