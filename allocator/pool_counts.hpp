// PoolCounts: what torch counts of a device's allocations: requests up to a limit (its small pool), those above it (its large pool), and both together; how many,
// their rounded and their requested bytes. Kept beside Counts, whose peaks others reset.
//
// N2: each tally's now == given - taken_back since the last reset of the totals, plus what was there then; now <= peak; all == small + large, but for the peak
//
// Kept as in Counts: the peak and the room below it. So one subtraction counts and tells whether the peak rises; what was given in all follows from the rest.
// Threads: under the allocator's lock. Cost: six subtractions for an allocation, nine additions for a free, two cache lines.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "allocator/counts.hpp"
#include "allocator/types.hpp"

namespace reprise {

class PoolCounts {
 public:
  explicit PoolCounts(std::size_t limit_bytes) noexcept : limit_bytes_(limit_bytes) {}

  bool wanted() const noexcept { return limit_bytes_ != 0; }
  void add(std::size_t requested, std::size_t rounded) noexcept {
    all_.add(requested, rounded);
    pools_[requested > limit_bytes_].levels.add(requested, rounded);
  }
  void remove(std::size_t requested, std::size_t rounded) noexcept {
    all_.remove(requested, rounded);
    Pool& pool = pools_[requested > limit_bytes_];
    pool.levels.remove(requested, rounded);
    pool.taken_back[0] += 1;
    pool.taken_back[1] += static_cast<std::int64_t>(rounded);
    pool.taken_back[2] += static_cast<std::int64_t>(requested);
  }
  void reset_peaks() noexcept;
  void reset_totals() noexcept;
  PoolStatistics show() const noexcept;

 private:
  struct Levels {
    std::array<PeakCount, 3> counts;  // allocations, rounded bytes, requested bytes
    void add(std::size_t requested, std::size_t rounded) noexcept {
      counts[0].add(1);
      counts[1].add(rounded);
      counts[2].add(requested);
    }
    void remove(std::size_t requested, std::size_t rounded) noexcept {
      counts[0].remove(1);
      counts[1].remove(rounded);
      counts[2].remove(requested);
    }
  };
  struct Pool {
    Levels levels;
    std::array<std::int64_t, 3> taken_back{}, there{};  // since the totals were reset, and what was live then
  };

  const std::size_t limit_bytes_;
  Levels all_;
  std::array<Pool, 2> pools_;  // small, large
};

}  // namespace reprise
