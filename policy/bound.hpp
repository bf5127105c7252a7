// Bound: added seconds that no schedule within a limit can stay under, by Lagrangian relaxation; each evaluation is a minimum cut.
//
// Words: a moment is a cell at which the limit is looked at; y(o, m): Op o runs again at some time after moment m; n(v, m): Value v is needed after m.
// What has a packed form may be held in it at a moment, for its fewer bytes and an equal part of its packing and unpacking seconds a moment.
// Relaxed: the limit holds at the moments only, weighted by prices λ(m) >= 0 of a byte; an Op is charged once however often it runs again; what a Group
// holds in passing is not counted. For any prices
//   L(λ) = Σ_m λ(m) (fixed(m) - limit) + min Σ_o seconds(o) y(o, first moment) + Σ_m λ(m) Σ_v bytes(v) [n(v, m) and some maker of v has y = 0 at m]
// B1  n(v, m) where v is unpacked first after m; where an Op with y(o, m) reads v. y(o, m) implies y(o, m') for each earlier m'
// B2  L(λ) <= seconds of every schedule whose levels are within the limit (weak duality); the best λ is sought by subgradients, the moments one by one
// Threads: one Bound per thread. Failure: none; `seconds` is at least 0.
#pragma once

#include <cstdint>
#include <vector>

#include "policy/min_cut.hpp"
#include "policy/pricer.hpp"

namespace reprise {

class Bound {
 public:
  explicit Bound(const Instance& instance, int32_t most_moments = 12);

  struct Answer {
    double seconds = 0;           // nothing within the limit adds less
    std::vector<Choice> choices;  // what the cuts near the limit kept: good places to begin a search
  };

  // What is kept (a packed form is not kept) and what runs again at `count` prices of a byte at all-kept's peak, from cheap to dear: how each stretch of the graph trades bytes for seconds.
  struct Trade {
    std::vector<uint8_t> keep, again;
  };  // per Value, per Op
  std::vector<Trade> trades(int32_t count);

  // target: seconds of the best Choice known, which scales the steps (0: none known).
  Answer run(int64_t limit_bytes, double target_seconds, int32_t cuts = 200);
  // The same, from the moments and prices of the limit before: for a sweep over many limits.
  Answer run_next(int64_t limit_bytes, double target_seconds, int32_t cuts = 40);
  // B3  for given prices L is a line over the limit, so each one found bounds every limit: the highest of them there.
  double at_least(int64_t limit_bytes) const;

 private:
  static constexpr int32_t kSource = 0, kSink = 1;
  struct Hold {
    int32_t value, moment, edge, needed;
    bool packed;  // the cheaper of the two at the prices set last
  };
  struct Line {
    double start, slope;  // seconds, seconds a byte
  };
  enum Held : uint8_t { kNot, kKept, kPacked };

  void find_first_unpacks();
  void fix_levels();
  int32_t worst_cell() const;  // where what the last cut keeps exceeds everything else
  bool add_moment();
  void build();
  void build_moment(int32_t moment);
  bool is_charged(int32_t value, int32_t cell) const;  // to have it there costs bytes that not every schedule has
  int64_t price_hold(Hold& hold) const;                // capacity of its edge
  double evaluate(int64_t limit_bytes);                // L(price_); fills kept_ and level_
  double climb(int64_t limit_bytes, double target_seconds, int32_t cuts, Answer& answer);
  void raise_alone(int32_t moment, int64_t limit_bytes, Answer& answer);
  void note(double value, int64_t limit_bytes, Answer& answer);

  const Instance& in_;
  int32_t most_moments_;
  std::vector<int64_t> fixed_;         // per cell: bytes that every schedule has there
  std::vector<int32_t> first_unpack_;  // per Value: cell, or the number of cells when never
  std::vector<int32_t> moments_;       // cells, rising
  std::vector<Hold> holds_;
  MinCut cut_;
  std::vector<Line> lines_;
  double scale_ = 1;            // capacities per second
  std::vector<double> price_;   // per moment: seconds a byte
  std::vector<int64_t> level_;  // per moment, of the last cut
  std::vector<Held> held_;      // per Value, of the last cut
};

}  // namespace reprise
