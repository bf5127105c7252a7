#include "policy/simulate.hpp"

#include <stdexcept>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise {
namespace {

constexpr size_t kPageBytes = 4096;   // the CPU's: what the host device commits and gives back

class CoreMemory final : public Memory {
 public:
  explicit CoreMemory(CachingAllocator& core) : core_(core) {}
  void* take(int64_t bytes) override {
    void* pointer = core_.allocate(static_cast<size_t>(bytes));
    for (size_t more = size_t{64} << 10; !pointer && more < kNoCap / 4; more *= 2) {   // too much for the limit: how much would do?
      core_.set_cap(core_.statistics().cap_bytes + more);
      pointer = core_.allocate(static_cast<size_t>(bytes));
    }
    if (!pointer) throw std::runtime_error("simulate: the simulated device has no room for " + std::to_string(bytes) + " bytes");
    return pointer;
  }
  void give(void* pointer, int64_t) override { core_.deallocate(pointer); }

 private:
  CachingAllocator& core_;
};

// Everything that the Pass could have alive at once, twice.
size_t capacity(const Profile& profile) {
  size_t sum = size_t{64} << 20;
  for (int64_t b : profile.data().buffers) sum += static_cast<size_t>(b);
  for (const ProfileValue& v : profile.values()) sum += static_cast<size_t>(v.bytes);
  return 2 * sum;
}

}  // namespace

Simulated simulate(const Plan& plan, const Profile& profile) {
  SimulatedDevice device(capacity(profile), kPageBytes);
  int64_t before = 0;
  for (int32_t b = 0; b < profile.data().outside_buffers; b++) before += profile.data().buffers[static_cast<size_t>(b)];
  AllocatorOptions options;
  options.caches = false;   // peaks exact to the byte
  if (plan.limit_bytes > 0) options.cap_bytes = static_cast<size_t>(before + plan.limit_bytes);
  CachingAllocator core(device, options);
  CoreMemory memory(core);
  Simulated out;
  execute(plan, profile, memory, out);
  out.peak_reserved_bytes = std::max(out.peak_live_bytes, static_cast<int64_t>(core.statistics().peak_reserved_bytes) - before);
  return out;
}

}  // namespace reprise
