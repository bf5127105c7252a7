#include "allocator/host/host_device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

namespace reprise {

namespace {
constexpr std::size_t kStepBytes = std::size_t{32} << 20;
constexpr std::size_t kBlockBytes = std::size_t{2} << 20;
#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // Linux 6.1; older kernels refuse it, and the block becomes huge when they get to it
#endif

bool system_allows_huge_pages() {
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
  const std::string text{std::istreambuf_iterator<char>(setting), {}};
  return !text.empty() && text.find("[never]") == std::string::npos;
}
}  // namespace

HostDevice::HostDevice(HostOptions options)
    : options_(options),
      page_bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))),
      capacity_bytes_(static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes_) {
  options_.huge_pages = options_.huge_pages && system_allows_huge_pages();
}

std::byte* HostDevice::reserve(std::size_t bytes) noexcept {
  void* const base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  try {
    ranges_.push_back({static_cast<std::byte*>(base), bytes, std::vector<bool>(bytes / kStepBytes + 1), {}});
  } catch (...) {
    munmap(base, bytes);
    return nullptr;
  }
  return static_cast<std::byte*>(base);
}

void HostDevice::release(std::byte* base, std::size_t bytes) noexcept {
  munmap(base, bytes);
  std::erase_if(ranges_, [&](const Range& range) { return range.base == base; });
}

HostDevice::Range* HostDevice::range_of(const std::byte* address) noexcept {
  const auto found =
      std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& range) { return address >= range.base && address < range.base + range.bytes; });
  return found == ranges_.end() ? nullptr : &*found;
}

bool HostDevice::commit(std::byte* first, std::size_t bytes) noexcept {
  Range* const range = range_of(first);
  if (range == nullptr) return false;
  const std::size_t begin = static_cast<std::size_t>(first - range->base) / kStepBytes;
  const std::size_t end = (static_cast<std::size_t>(first - range->base) + bytes - 1) / kStepBytes;
  for (std::size_t step = begin; step <= end; ++step) {
    if (range->accessible[step]) continue;
    const std::size_t offset = step * kStepBytes;
    const std::size_t length = std::min(kStepBytes, range->bytes - offset);
    if (mprotect(range->base + offset, length, PROT_READ | PROT_WRITE) != 0) return false;
    range->accessible[step] = true;
  }
  count_pages(*range, first, bytes, true);
  return true;
}

bool HostDevice::decommit(std::byte* first, std::size_t bytes) noexcept {
  Range* const range = range_of(first);
  if (range == nullptr || madvise(first, bytes, MADV_DONTNEED) != 0) return false;
  count_pages(*range, first, bytes, false);
  return true;
}

// Keeps M2. All of it is advice: where the kernel refuses, pages stay small.
void HostDevice::count_pages(Range& range, std::byte* first, std::size_t bytes, bool committed) noexcept {
  if (!options_.huge_pages) return;
  const auto base = reinterpret_cast<std::uintptr_t>(range.base) / kBlockBytes * kBlockBytes;
  const std::size_t begin = reinterpret_cast<std::uintptr_t>(first) - base;
  const std::size_t end = begin + bytes;
  try {
    range.pages_of_block.resize(std::max(range.pages_of_block.size(), (end - 1) / kBlockBytes + 1));
  } catch (...) {
    options_.huge_pages = false;  // memory for the counts is out
    return;
  }
  for (std::size_t at = begin; at < end;) {
    const std::size_t block = at / kBlockBytes;
    const std::size_t next = std::min(end, (block + 1) * kBlockBytes);
    const auto pages = static_cast<std::uint16_t>((next - at) / page_bytes_);
    std::uint16_t& count = range.pages_of_block[block];
    const bool was_full = count == kBlockBytes / page_bytes_;
    count = static_cast<std::uint16_t>(committed ? count + pages : count - pages);
    const bool is_full = count == kBlockBytes / page_bytes_;
    std::byte* const start = first + (static_cast<std::ptrdiff_t>(block * kBlockBytes) - static_cast<std::ptrdiff_t>(begin));  // where the block begins
    const bool whole = next - at == kBlockBytes;
    if (was_full != is_full) madvise(start, kBlockBytes, is_full ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    if (is_full && !whole) madvise(start, kBlockBytes, kCollapse);
    at = next;
  }
}

}  // namespace reprise
