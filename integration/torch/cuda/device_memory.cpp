#include "integration/torch/cuda/device_memory.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "allocator/cuda/malloc_device.hpp"
#include "allocator/cuda/mapped_device.hpp"
#include "policy/budget.hpp"

namespace reprise::cuda {

namespace {

using c10::CachingAllocator::Stat;
using c10::CachingAllocator::StatArray;
using c10::CachingAllocator::StatType;

constexpr std::size_t kRounding = 512;                    // as torch's own, so that sums agree
constexpr std::size_t kSmallPool = std::size_t{1} << 20;  // up to here torch counts an allocation as small

void add(Stat& to, const Stat& more) {
  to.current += more.current;
  to.peak += more.peak;  // exact where one of the two never held anything; else an upper bound: the peaks may be apart in time
  to.allocated += more.allocated;
  to.freed += more.freed;
}

void add(StatArray& to, const StatArray& more) {
  for (std::size_t pool = 0; pool < to.size(); pool++) add(to[pool], more[pool]);
}

// All of it is one pool: the large one.
StatArray in_large_pool(const Stat& stat) {
  StatArray all{};
  all[static_cast<std::size_t>(StatType::AGGREGATE)] = all[static_cast<std::size_t>(StatType::LARGE_POOL)] = stat;
  return all;
}

Stat stat(const Tally& tally) {
  Stat made;
  made.current = tally.now;
  made.peak = tally.peak;
  made.allocated = tally.given;
  made.freed = tally.taken_back;
  return made;
}

StatArray by_pool(const PoolStatistics& pools, Tally PoolTallies::*which) {
  StatArray all{};
  all[static_cast<std::size_t>(StatType::AGGREGATE)] = stat(pools.all.*which);
  all[static_cast<std::size_t>(StatType::SMALL_POOL)] = stat(pools.small.*which);
  all[static_cast<std::size_t>(StatType::LARGE_POOL)] = stat(pools.large.*which);
  return all;
}

Stat stat(std::size_t now, std::size_t peak, std::size_t given, std::size_t taken_back) {
  Stat made;
  made.current = static_cast<std::int64_t>(now);
  made.peak = static_cast<std::int64_t>(peak);
  made.allocated = static_cast<std::int64_t>(given);
  made.freed = static_cast<std::int64_t>(taken_back);
  return made;
}

// What a block leaves on the device: for torch's own allocator (graphs, private pools), other libraries' memory, and kernels that are loaded later.
constexpr std::size_t kReserveShare = 8;  // of what is free
constexpr std::size_t kLeastReserve = std::size_t{256} << 20;
constexpr std::size_t kRoomShare = 4;  // of a budget, on top of it: addresses end with the block, and best fit needs some between live pieces

// REPRISE_BUDGET, which nobody has read yet when the first tensor is made; 0: none, or no budget (surface.cpp says that).
std::size_t budget_of_environment(std::size_t capacity) {
  const char* const text = std::getenv("REPRISE_BUDGET");
  if (text == nullptr || *text == '\0') return 0;
  try {
    return static_cast<std::size_t>(Budget::parse(text).resolve(static_cast<std::int64_t>(capacity)));
  } catch (const std::invalid_argument&) {
    return 0;
  }
}

std::size_t block_bytes_for(const Gpu& gpu, double fraction) {
  const std::size_t free_bytes = gpu.free_bytes(), budget = budget_of_environment(gpu.capacity_bytes);
  std::size_t bytes = free_bytes - std::min(free_bytes, std::max(free_bytes / kReserveShare, kLeastReserve));
  if (fraction < 1) bytes = std::min(bytes, static_cast<std::size_t>(fraction * static_cast<double>(gpu.capacity_bytes)));
  return budget == 0 ? bytes : std::min(bytes, budget + budget / kRoomShare);
}

enum class Way { kEither, kMapped, kBlock };

Way wanted_way() {
  const char* const text = std::getenv("REPRISE_CUDA_DEVICE");
  const std::string_view wanted = text == nullptr ? "" : text;
  if (wanted.empty()) return Way::kEither;
  if (wanted == "malloc") return Way::kBlock;
  if (wanted != "vmm") std::fprintf(stderr, "reprise: environment REPRISE_CUDA_DEVICE: \"%s\" is neither vmm nor malloc; vmm is used\n", text);
  return Way::kMapped;
}

std::unique_ptr<CudaDevice> make_device(c10::DeviceIndex index, double fraction, std::string& why) {
  const auto gpu = Gpu::find(index, why);
  if (!gpu) return nullptr;
  static const Way way = wanted_way();
  if (way == Way::kMapped || (way == Way::kEither && gpu->maps_memory())) return MappedDevice::make(*gpu, why);
  auto made = MallocDevice::make(*gpu, block_bytes_for(*gpu, fraction), why);
  if (made != nullptr && way == Way::kEither)
    std::fprintf(stderr, "reprise: %s has no virtual memory management: one block of %s of it is held from now on\n", gpu->name().c_str(),
                 c10::CachingAllocator::format_size(made->block_bytes()).c_str());
  return made;
}

bool wants_regions() {
  const char* const text = std::getenv("REPRISE_NVTX");
  const std::string_view wanted = text == nullptr ? "" : text;
  if (!wanted.empty() && wanted != "0" && wanted != "1")
    std::fprintf(stderr, "reprise: environment REPRISE_NVTX: \"%s\" is neither 0 (off) nor 1 (memory regions for compute-sanitizer); it is off\n", text);
  return wanted == "1";
}

std::unique_ptr<NvtxRegions> make_regions(c10::DeviceIndex index, const CachingAllocator& core) {
  static const bool wanted = wants_regions();
  if (!wanted) return nullptr;
  const std::string device = "device " + std::to_string(index);
  std::string why;
  auto made = NvtxRegions::make(core.arena_first(), core.arena_bytes(), "reprise, " + device, why);
  if (made == nullptr) std::fprintf(stderr, "reprise: REPRISE_NVTX=1, but %s tells nobody of memory regions: %s\n", device.c_str(), why.c_str());
  return made;
}

}  // namespace

std::unique_ptr<DeviceMemory> DeviceMemory::make(c10::DeviceIndex index, double fraction, std::string& why) {
  auto device = make_device(index, fraction, why);
  return device == nullptr ? nullptr : std::unique_ptr<DeviceMemory>(new DeviceMemory(index, std::move(device)));
}

// Nothing is cached by size: pages are large here, and what is freed and joined at once makes the same layout in every step: from the second on no page is asked for.
DeviceMemory::DeviceMemory(c10::DeviceIndex index, std::unique_ptr<CudaDevice> device)
    : index_(index),
      device_(std::move(device)),
      core_(*device_,
            {.rounding_bytes = kRounding, .small_limit_bytes = 0, .caches = false, .arena_bytes = device_->block_bytes(), .pool_limit_bytes = kSmallPool}),
      regions_(make_regions(index, core_)) {}

void* DeviceMemory::allocate_slow(std::size_t bytes, cudaStream_t stream) noexcept {
  void* pointer = nullptr;
  try {
    pointer = core_.allocate(bytes, stream == nullptr ? 0 : device_->id_of(stream));
  } catch (const std::bad_alloc&) {  // for the number of a new stream
  }
  if (pointer != nullptr && regions_ != nullptr) regions_->add(pointer, bytes);
  return pointer;
}

bool DeviceMemory::record_stream(void* pointer, cudaStream_t stream) noexcept {
  try {
    return core_.record_stream(pointer, device_->id_of(stream));
  } catch (const std::bad_alloc&) {
    return false;
  }
}

std::size_t DeviceMemory::largest_free() const {
  std::size_t largest = 0;
  for (const Stretch& stretch : core_.stretches())
    if (stretch.state == Stretch::State::kFree) largest = std::max(largest, stretch.bytes);
  return largest;
}

bool DeviceMemory::apply_limit() {
  const std::size_t both = std::min(fraction_limit_, budget_);
  limit_ = both;
  return core_.set_cap(both == kNoCap ? kNoCap : both - std::min(both, native_reserved_));
}

void DeviceMemory::set_limit(std::size_t& which, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(limit_mutex_);
  which = bytes;
  if (!apply_limit()) core_.set_cap(reserved_bytes());
}

void DeviceMemory::set_fraction(double fraction) {
  set_limit(fraction_limit_, fraction >= 1 ? kNoCap : static_cast<std::size_t>(fraction * static_cast<double>(capacity_bytes())));
}

bool DeviceMemory::set_budget(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(limit_mutex_);
  const std::size_t before = std::exchange(budget_, bytes);
  if (apply_limit()) return true;
  budget_ = before;
  limit_ = std::min(fraction_limit_, budget_);
  return false;
}

void DeviceMemory::native_reserves(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(limit_mutex_);
  native_reserved_ = bytes;
  if (!apply_limit()) core_.set_cap(reserved_bytes());
}

void DeviceMemory::add_to(c10::CachingDeviceAllocator::DeviceStats& stats) const {
  const Committed committed = device_->committed();
  std::size_t waiting = 0;
  const PoolStatistics pools = core_.pool_statistics(&waiting);
  const auto pending = static_cast<std::int64_t>(waiting);
  const StatArray allocations = by_pool(pools, &PoolTallies::allocations), allocated = by_pool(pools, &PoolTallies::allocated_bytes);
  add(stats.reserved_bytes, in_large_pool(stat(committed.now, committed.peak, committed.given, committed.taken_back)));
  const std::size_t arenas = committed.now > 0 ? 1 : 0, were = committed.peak > 0 ? 1 : 0;
  add(stats.segment, in_large_pool(stat(arenas, were, arenas, 0)));  // the arena is one segment, however many pages it has
  stats.num_device_alloc += static_cast<std::int64_t>(committed.driver_gave);
  stats.num_device_free += static_cast<std::int64_t>(committed.driver_took);
  add(stats.allocation, allocations);
  add(stats.active, allocations);
  add(stats.allocated_bytes, allocated);
  add(stats.requested_bytes, by_pool(pools, &PoolTallies::requested_bytes));
  StatArray active = allocated;  // and what waits for other streams
  for (const StatType pool : {StatType::AGGREGATE, StatType::LARGE_POOL}) {
    Stat& bytes = active[static_cast<std::size_t>(pool)];
    bytes.current += pending;
    bytes.freed -= pending;
    bytes.peak = std::max(bytes.peak, bytes.current);
  }
  add(stats.active_bytes, active);
  stats.num_ooms += out_of_memory_;
  stats.num_alloc_retries += retries_;
}

// Stretches that touch, of one stream, are a segment.
void DeviceMemory::add_to(c10::cuda::CUDACachingAllocator::SnapshotInfo& snapshot, const History& history) const {
  const std::byte* end = nullptr;
  StreamId stream = 0;
  for (const Stretch& stretch : core_.stretches()) {
    if (stretch.first != end || stretch.stream != stream) {
      auto& segment = snapshot.segments.emplace_back();
      segment.device = index_;
      segment.address = reinterpret_cast<std::size_t>(stretch.first);
      segment.stream = device_->handle_of(stretch.stream);
      segment.is_large = segment.is_expandable = true;
    }
    end = stretch.first + stretch.bytes;
    stream = stretch.stream;
    auto& segment = snapshot.segments.back();
    auto& block = segment.blocks.emplace_back();
    block.size = stretch.bytes;
    block.requested_size = stretch.requested;
    block.allocated = stretch.state == Stretch::State::kLive;
    block.active = stretch.state != Stretch::State::kFree;
    if (block.allocated) block.context_when_allocated = history.of_live(stretch.first);
    segment.total_size += block.size;
    segment.requested_size += block.requested_size;
    segment.allocated_size += block.allocated ? block.size : 0;
    segment.active_size += block.active ? block.size : 0;
  }
}

void DeviceMemory::reset_accumulated() {
  device_->reset_totals();
  core_.reset_pool_totals();
  out_of_memory_ = retries_ = 0;
}

void DeviceMemory::reset_peaks() {
  device_->reset_peak();
  core_.reset_pool_peaks();
}

}  // namespace reprise::cuda
