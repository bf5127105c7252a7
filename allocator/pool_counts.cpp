#include "allocator/pool_counts.hpp"

namespace reprise {

void PoolCounts::reset_peaks() noexcept {
  for (Levels* const levels : {&all_, &pools_[0].levels, &pools_[1].levels})
    for (PeakCount& count : levels->counts) count.reset_peak();
}

void PoolCounts::reset_totals() noexcept {
  for (Pool& pool : pools_) {
    pool.taken_back = {};
    for (std::size_t i = 0; i < pool.there.size(); ++i) pool.there[i] = static_cast<std::int64_t>(pool.levels.counts[i].now());
  }
}

PoolStatistics PoolCounts::show() const noexcept {
  const auto tallies_of = [](const Levels& levels) {
    std::array<Tally, 3> tallies;
    for (std::size_t i = 0; i < tallies.size(); ++i) tallies[i] = {.now = static_cast<std::int64_t>(levels.counts[i].now()), .peak = levels.counts[i].peak};
    return tallies;
  };
  auto all = tallies_of(all_);
  std::array<std::array<Tally, 3>, 2> apart{};
  for (std::size_t which = 0; which < pools_.size(); ++which) {
    apart[which] = tallies_of(pools_[which].levels);
    for (std::size_t i = 0; i < all.size(); ++i) {
      Tally& tally = apart[which][i];
      tally.taken_back = pools_[which].taken_back[i];
      tally.given = tally.taken_back + tally.now - pools_[which].there[i];
      all[i].given += tally.given;
      all[i].taken_back += tally.taken_back;
    }
  }
  const auto named = [](const std::array<Tally, 3>& tallies) {
    return PoolTallies{.allocations = tallies[0], .allocated_bytes = tallies[1], .requested_bytes = tallies[2]};
  };
  return {.all = named(all), .small = named(apart[0]), .large = named(apart[1])};
}

}  // namespace reprise
