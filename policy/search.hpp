// Search: the cheapest Choice found within a limit. Starts from two-level checkpoints, repairs what does not fit, gives bytes back, anneals.
// Deterministic: work is counted in prices, not in time; the clock only guards (then the answer is the best so far and `guarded` says so).
// Cost: about `prices` × the price of one Choice. Threads: one Search per thread. Failure: none; `fits` is false when nothing was found.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "policy/blocks.hpp"
#include "policy/pricer.hpp"

namespace reprise {

struct SearchOptions {
  int64_t prices = 0;            // how many Choices to price; 0: as many as take about 0.3 s
  double guard_seconds = 10;     // stop then, whatever is left
  double small_share = 2e-4;     // saved Values below this share of the plain peak are kept always
};

struct Found {
  Choice choice;
  bool fits = false;
  bool guarded = false;          // the clock stopped it
  double seconds = 0;
  int64_t peak_bytes = 0, prices = 0;
};

class Search {
 public:
  Search(const Instance& instance, const std::vector<Block>& blocks, const SearchOptions& options);
  Found run(int64_t limit_bytes, const std::vector<Choice>& more_starts = {}, int64_t divide_prices = 1);

 private:
  using Move = std::vector<std::pair<uint8_t, int32_t>>;   // which list (0 keep, 1 memo, 2 cut), entry
  struct Priced { double score; Choice choice; };

  void find_candidates();
  void make_moves(const std::vector<Block>& blocks);
  void make_starts(const std::vector<Block>& blocks);
  void add_start(const std::vector<int32_t>& kept, const std::vector<int32_t>& cuts);
  std::vector<Choice> promising(const std::vector<Choice>& starts, int64_t limit);
  void flip(const Move& move);
  void price(int64_t limit);
  bool spent() const;
  bool repair(int64_t limit, size_t moves);
  void fill(int64_t limit);
  void fill_family(const std::vector<int32_t>& family, bool from_end, int64_t limit);
  void anneal(int64_t limit, int64_t steps);
  Move random_move();
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
  std::vector<Move> moves_;                        // those of whole families first
  size_t family_moves_ = 0;
  std::vector<std::vector<int32_t>> families_;     // the same Value in all Blocks of a family
  std::vector<Choice> starts_;
  std::mt19937_64 rng_{1};
};

}  // namespace reprise
