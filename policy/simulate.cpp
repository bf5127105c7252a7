#include "policy/simulate.hpp"

#include <algorithm>
#include <stdexcept>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

class CoreMemory final : public Memory {
 public:
  CoreMemory(CachingAllocator& core, std::shared_ptr<const PlannedStep> placed) : core_(core), placed_(std::move(placed)) {}
  void* take(int64_t bytes) override {
    void* pointer = core_.allocate(static_cast<size_t>(bytes));
    for (size_t more = size_t{64} << 10; !pointer && more < kNoCap / 4; more *= 2) {  // too much for the limit: how much would do?
      core_.set_cap(core_.statistics().cap_bytes + more);
      pointer = core_.allocate(static_cast<size_t>(bytes));
    }
    if (!pointer) throw std::runtime_error("simulate: the simulated device has no room for " + std::to_string(bytes) + " bytes");
    return pointer;
  }
  void give(void* pointer, int64_t) override { core_.deallocate(pointer); }
  void begin_pass() override {
    if (placed_) core_.begin_planned(placed_);
  }

 private:
  CachingAllocator& core_;
  std::shared_ptr<const PlannedStep> placed_;
};

// Everything that the Pass could have alive at once, twice.
size_t capacity(const Profile& profile) {
  size_t sum = size_t{64} << 20;
  for (int64_t b : profile.data().buffers) sum += static_cast<size_t>(b);
  for (const ProfileValue& v : profile.values()) sum += static_cast<size_t>(v.bytes);
  return 2 * sum;
}

// Live pieces and holes in the same order and sizes, then the holes freed: best fit on an empty core lays them side by side. Returns the bytes that
// the Pass cannot have: what is reserved where pages are small, for live pieces fill them near enough; the live pieces alone where pages are large, for the
// rest of those pages is what a Pass lives in.
int64_t lay_out(CachingAllocator& core, const StartLayout& start) {
  constexpr size_t kLargePage = size_t{64} << 10;
  constexpr int64_t kLeastHole = 2048;  // smaller ones would be served from slabs: they count as part of the piece before them
  std::vector<void*> holes;
  int64_t live = 0;
  if (!start.empty() && start.front().first >= kLeastHole) holes.push_back(core.allocate(static_cast<size_t>(start.front().first)));
  for (size_t i = 0; i < start.size(); i++) {
    const auto [offset, bytes] = start[i];
    const int64_t hole = i + 1 < start.size() ? start[i + 1].first - offset - bytes : 0;
    core.allocate(static_cast<size_t>(bytes + (hole < kLeastHole ? std::max<int64_t>(hole, 0) : 0)));
    if (hole >= kLeastHole) holes.push_back(core.allocate(static_cast<size_t>(hole)));
    live += bytes;
  }
  for (void* hole : holes) core.deallocate(hole);
  core.trim();
  return core.page_bytes() < kLargePage ? static_cast<int64_t>(core.statistics().reserved_bytes) : live;
}

}  // namespace

Simulated simulate(const Plan& plan, const Profile& profile, const StartLayout& start, const HeapShape& heap,
                   const std::shared_ptr<const PlannedStep>& placed) {
  const int64_t extent = start.empty() ? 0 : start.back().first + start.back().second;
  SimulatedDevice device(capacity(profile) + 2 * static_cast<size_t>(extent), heap.page_bytes);
  int64_t before = 0;
  for (int32_t b = 0; b < profile.data().outside_buffers; b++) before += profile.data().buffers[static_cast<size_t>(b)];
  // With caches where training has them: what they hold back decides where the next piece lies.
  const AllocatorOptions options{.rounding_bytes = heap.rounding_bytes, .small_limit_bytes = heap.small_limit_bytes, .caches = heap.caches};
  CachingAllocator core(device, options);
  before += lay_out(core, start);
  core.reset_peaks();
  if (plan.limit_bytes > 0) core.set_cap(static_cast<size_t>(before + plan.limit_bytes));
  CoreMemory memory(core, placed);
  Simulated out;
  execute(plan, profile, memory, out);
  out.peak_reserved_bytes = std::max(out.peak_live_bytes, static_cast<int64_t>(core.statistics().peak_reserved_bytes) - before);
  return out;
}

}  // namespace reprise
