// Segments: nested checkpoints for a graph taken as a chain of stretches, by a dynamic programme; solved once, asked for any limit.
//
// Words: a segment is a stretch between two places where few bytes cross; an option is a way to keep part of what a segment saves.
// best(s, t, m): least seconds that run again for segments s … t, whose forward runs now, with m bytes for all that is not held outside them:
//   G1  one segment: an option whose kept bytes and backward fit into m
//   G2  s under an option, then best(s + 1, t, m - kept)
//   G3  a checkpoint before k: best(k, t, m - crossing(k)), then s … k - 1 runs again: forward(s … k - 2) + inner(k - 1) + best(s, k - 1, m)
// Options come from Bound::trades and are priced one segment at a time, everything else kept; equal segments share the prices. The answer is a proposal: the Pricer says
// what it really needs, so several m are offered.
// Cost: segments^3 × slots / 6 steps, at most 72 and 160: about 20 ms. Threads: none. Failure: none; no proposal where nothing fits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "policy/bound.hpp"
#include "policy/pricer.hpp"

namespace reprise {

class Segments {
 public:
  // most_bytes: what the table reaches up to; less of it is finer.
  Segments(const Instance& instance, const std::vector<int32_t>& borders, const std::vector<Bound::Trade>& trades, const Choice& base, int64_t most_bytes);

  bool propose(int64_t bytes, Choice& choice) const;  // false: nothing fits into so few bytes
  int64_t slot_bytes() const { return slot_; }

 private:
  struct Option {
    std::vector<int32_t> keep, cuts;  // Values, Ops
    int32_t kept = 0, needs = 0;      // slots: held from its forward to its backward; highest in its backward, kept ones included
    double seconds = 0;               // that run again inside its backward
  };
  struct Segment {
    int32_t first = 0, end = 0;     // Ops
    std::vector<int32_t> crossing;  // Values that a checkpoint before it holds
    int32_t crossing_slots = 0;
    double forward = 0, inner = 0;  // seconds of all its Ops; of those that serve something else than what crosses its end (that is still there then)
    std::vector<Option> options;
  };
  struct Best {
    float seconds;
    int16_t option, checkpoint;
  };  // option of s (G1, G2), or k (G3)

  void cut(const std::vector<int32_t>& borders);
  std::vector<uint8_t> serving() const;
  void find_backward_cells();
  void add_options(const std::vector<Bound::Trade>& trades);
  Option option(size_t segment, const std::function<bool(int32_t)>& keeps) const;
  void price(size_t segment, Option option, Pricer& pricer);
  void solve();
  void solve_range(int32_t s, int32_t t);
  void follow(int32_t s, int32_t t, int32_t m, int32_t depth, Choice& choice) const;
  int32_t slots(int64_t bytes) const { return static_cast<int32_t>(std::min<int64_t>(kSlots, (bytes + slot_ / 2) / slot_)); }  // the Pricer has the last word
  Best& best(int32_t s, int32_t t, int32_t m) {
    return table_[(static_cast<size_t>(s) * segments_.size() + static_cast<size_t>(t)) * kSlots + static_cast<size_t>(m)];
  }
  const Best& best(int32_t s, int32_t t, int32_t m) const { return const_cast<Segments*>(this)->best(s, t, m); }

  static constexpr int32_t kSlots = 160, kMost = 72;
  const Instance& in_;
  const Choice& base_;  // kept whatever the options say
  int64_t slot_ = 1;    // bytes
  Choice all_;          // keeps all that is saved
  std::vector<Segment> segments_;
  std::vector<int32_t> segment_of_;  // per Op
  std::vector<int32_t> owner_;       // per cell: the segment whose backward runs, or -1 in the forward
  std::vector<Best> table_;
};

}  // namespace reprise
