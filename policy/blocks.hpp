// Blocks: stretches of the Op sequence that repeat, found from operators and shapes alone.
//
// B1  Blocks are disjoint, in order, and start and end where the bytes that cross are lowest among the phases of their period
// B2  two Blocks of one family have the same operators in the same order (shapes may differ by scale), but for casts of weights
// B3  consecutive Blocks of a run are chained: each reads something that the one before makes
// Cost: quadratic in Ops with a tiny constant (one comparison of integers): 2,500 Ops take a few milliseconds.
#pragma once

#include <cstdint>
#include <vector>

#include "profiler/profile.hpp"

namespace reprise {

struct Block {
  int32_t first_op = 0;
  int32_t last_op = 0;  // inclusive
  int32_t family = 0;
  bool operator==(const Block&) const = default;
};

std::vector<Block> find_blocks(const Profile& profile);

// Per Op position o in [0, ops]: bytes of Values made before o and read at or after it.
std::vector<int64_t> crossing_bytes(const Profile& profile);
// Planned Values that cross position `op`.
std::vector<int32_t> crossing_values(const Profile& profile, int32_t op);
// Positions at which the sequence may be cut: Block starts and the position after a Block where none follows at once.
// Without Blocks: local minima of the crossing bytes. Never 0.
std::vector<int32_t> block_borders(const Profile& profile, const std::vector<Block>& blocks);

}  // namespace reprise
