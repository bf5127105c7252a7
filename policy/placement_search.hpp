// CapacitySearch: can these allocations be placed below a capacity? Bottom-up, depth first, with restarts.
//
// Words. Section: a time at which the set of live allocations is not part of another time's; nothing else has to be looked at. Floor of an allocation:
// the highest end of what was placed under it. Rank: the order in which allocations at equal floors are tried; changes with each restart.
//
// C1  allocations are placed by (offset, rank) ascending, each on its floor: every placement can be pushed down into this form
// C2  once a free allocation would end below or at the next one's floor, placing it first is never worse: only lower floors are tried
// C3  what was passed over can only lie on something still to come: its floor is at least the lowest end of its free neighbours
// C4  in each section, lowest floor + bytes still to be placed <= capacity
// Free allocations that share no time any more are searched apart, the tightest part first. A restart prefers what stood where the last ones failed.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "policy/placement.hpp"

namespace reprise {

class CapacitySearch {
 public:
  CapacitySearch(std::vector<Lifetime> items, int64_t capacity_bytes);  // sizes above 0, lifetimes not empty

  // Offsets, or nothing after about that many looks.
  std::optional<std::vector<int64_t>> run(int64_t looks);

 private:
  using Group = std::vector<int32_t>;  // by birth
  void cut_into_sections();
  void rank_anew(int round);
  void restart();
  bool solve(const Group& group, int64_t level, int32_t last_rank);
  bool solve_rest(const Group& group, int32_t placed);
  std::vector<Group> split(const Group& group, int32_t without) const;
  std::optional<int64_t> slack(const Group& group, int64_t level, int32_t last_rank);  // least over the sections (C4); nothing: impossible
  int64_t lifted(int32_t item, int64_t level) const;                                   // C3
  void put(int32_t item);
  void take_back(int32_t item);
  void rewind(size_t mark);
  double random();

  std::vector<Lifetime> items_;
  int64_t capacity_;
  int32_t sections_ = 0;
  std::vector<int32_t> first_, last_;       // per item: its sections, [first, last)
  std::vector<Group> neighbours_;           // per item: those that share a section
  std::vector<int64_t> load_;               // per item: the fullest of its sections
  std::vector<int64_t> floor_, offset_;     // per item; offset -1: free
  std::vector<int32_t> rank_;               // per item
  std::vector<int64_t> to_place_, lowest_;  // per section
  std::vector<double> failures_;            // per section, fading
  std::vector<std::pair<int32_t, int64_t>> trail_;
  int64_t looks_ = 0, looks_end_ = 0;
  int64_t nodes_left_ = 0;  // of this round
  uint64_t state_ = 1;
};

}  // namespace reprise
