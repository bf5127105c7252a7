// Timeline: the Pass of a Profile cut into cells, with the bytes that no Plan changes. Immutable; made once per Profile.
//
// Cells are the stretches between the steps at which planned bytes may change: each Value's making, going and release, and each unpack, which
// has a cell of its own (a replay runs in it, nothing else does); so may the end of an Op after which a Value can be packed.
// C1  base_max[c] >= base_start[c];  base_start[c+1] is the fixed level at the end of c
// C2  a kept Value lives in [birth, max(gone, last_release)), a dropped one in [birth, gone)
#pragma once

#include <cstdint>
#include <vector>

#include "profiler/profile.hpp"

namespace reprise {

struct Timeline {
  struct Unpack {
    int32_t cell = 0;
    int32_t value = 0;
  };
  int32_t cells = 0;
  int32_t forward_end = 0;                         // cell in which backward begins
  std::vector<int64_t> base_start, base_max;       // fixed bytes above the Pass's start
  std::vector<int32_t> birth, gone;                // per Value: first cell, first cell without it
  std::vector<int32_t> last_unpack, last_release;  // per Value; -1 when not saved or never asked for
  std::vector<Unpack> unpacks;                     // in order
  std::vector<int32_t> packed_from;                // per Value: the cell in which its packed form appears; -1: it has none
  int64_t plain_peak = 0;                          // highest level when everything saved is kept

  static Timeline of(const Profile& profile);
};

}  // namespace reprise
