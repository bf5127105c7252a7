// Search: the cheapest Choice found within a limit. What has a packed form is packed where it is not kept, until the search finds that it is better made again.
// Starts from nested checkpoints (Segments), two-level ones and what the caller offers (cuts of the
// Bound, neighbours), repairs what does not fit, gives bytes back, anneals.
// Deterministic: work is counted in prices, not in time; the clock only guards (then the answer is the best so far and `guarded` says so).
// Cost: about `prices` × the price of one Choice; one in which Ops run again n times as often as there are Ops counts n more. Threads: one Search per thread. Failure: none; `fits` is false when nothing was found.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "policy/blocks.hpp"
#include "policy/pricer.hpp"

namespace reprise {

struct SearchOptions {
  int64_t prices = 0;  // how many Choices to price; 0: as many as take about effort times 0.3 s
  double effort = 1;
  double guard_seconds = 10;  // stop then, whatever is left
  double small_share = 2e-4;  // saved Values below this share of the plain peak are kept always, but for those that come with a larger one
};

struct Found {
  Choice choice;
  bool fits = false;
  bool guarded = false;  // the clock stopped it
  double seconds = 0;
  int64_t peak_bytes = 0, prices = 0;
};

class Search {
 public:
  Search(const Instance& instance, const std::vector<Block>& blocks, const SearchOptions& options);
  Found run(int64_t limit_bytes, const std::vector<Choice>& more_starts = {}, double share_of_prices = 1);
  std::vector<Choice> lowest(size_t count) const;  // starts that need least bytes

 private:
  enum Side : uint8_t { kKeep, kPack, kMemo, kCut };
  struct Change {
    Side side;
    int32_t index;
    uint8_t value;
  };
  using Move = std::vector<Change>;  // applied by swapping values: applying it again takes it back
  struct Family {
    Side side;
    std::vector<int32_t> members;
  };  // the same place in all Blocks of a kind, in order
  struct Start {
    Choice choice;
    double seconds;
    int64_t peak;
  };

  void find_candidates();
  int32_t larger_beside(int32_t v) const;
  void follow(Choice& choice) const;
  void find_families(const std::vector<Block>& blocks);
  void make_starts(const std::vector<Block>& blocks);
  void add_start(const std::vector<int32_t>& kept, const std::vector<int32_t>& cuts);
  void propose(const std::vector<int32_t>& borders);
  void offer(Choice choice);
  std::vector<Choice> promising(const std::vector<Choice>& more, int64_t limit);
  static uint8_t full(Side side) { return side == kKeep || side == kPack ? 1 : Choice::kLevels - 1; }
  uint8_t& slot(Side side, int32_t index) {
    auto& list = side == kKeep ? now_.keep : side == kPack ? now_.pack : side == kMemo ? now_.memo : now_.cut;
    return list[static_cast<size_t>(index)];
  }
  void apply(Move& move) {
    for (Change& c : move) std::swap(slot(c.side, c.index), c.value);
  }
  void price(int64_t limit);
  bool spent() const;
  void improve(int64_t limit, int64_t prices);
  Move toggle(const Family& family, size_t from, size_t step);
  std::vector<Move> repair_moves(bool single);
  bool repair(int64_t limit, bool single);
  void fill(int64_t limit);
  void fill_family(const Family& family, bool from_end, int64_t limit);
  void anneal(int64_t limit, int64_t steps, double hot_share);
  Move random_move();
  Move shift();
  Move exchange();
  Move exchange_three();
  Move relevel();
  double cost(int64_t limit) const;
  void remember(int64_t limit);

  const Instance& in_;
  SearchOptions options_;
  Pricer pricer_;
  Choice now_, best_, base_;
  bool best_fits_ = false;
  double best_seconds_ = 0, rate_ = 0, deadline_ = 0;
  int64_t best_peak_ = 0, prices_ = 0, until_ = 0;
  std::vector<uint8_t> candidate_;
  std::vector<int32_t> candidates_;  // Values that may be kept or not
  struct Follower {
    int32_t value, of;
  };
  std::vector<Follower> followers_;  // small Values, treated as the larger one that the same Ops make: what brings that one back brings them too
  std::vector<Family> families_, cuts_;
  std::vector<Start> starts_;
  std::mt19937_64 rng_{1};
};

}  // namespace reprise
