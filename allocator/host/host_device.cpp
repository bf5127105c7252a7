#include "allocator/host/host_device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace reprise {

namespace {
constexpr std::size_t kStepBytes = std::size_t{32} << 20;
}  // namespace

HostDevice::HostDevice(HostOptions options)
    : options_(options),
      page_bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))),
      capacity_bytes_(static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes_) {}

std::byte* HostDevice::reserve(std::size_t bytes) noexcept {
  void* const base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  try {
    ranges_.push_back({static_cast<std::byte*>(base), bytes, std::vector<bool>(bytes / kStepBytes + 1)});
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
  const auto found = std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& range) { return address >= range.base && address < range.base + range.bytes; });
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
    if (options_.huge_pages) madvise(range->base + offset, length, MADV_HUGEPAGE);  // advice: refused is fine
    range->accessible[step] = true;
  }
  return true;
}

bool HostDevice::decommit(std::byte* first, std::size_t bytes) noexcept { return madvise(first, bytes, MADV_DONTNEED) == 0; }

}  // namespace reprise
