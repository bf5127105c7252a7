#include "allocator/cuda/malloc_device.hpp"

namespace reprise::cuda {

namespace {

constexpr std::size_t page_at_or_after(std::size_t address) { return (address + MallocDevice::kPageBytes - 1) & ~(MallocDevice::kPageBytes - 1); }
constexpr std::size_t page_at_or_before(std::size_t address) { return address & ~(MallocDevice::kPageBytes - 1); }

}  // namespace

std::unique_ptr<MallocDevice> MallocDevice::make(const Gpu& gpu, std::size_t bytes, std::string& why) {
  bytes = page_at_or_before(bytes);
  CUdeviceptr allocation = 0;
  const Within within(gpu);
  if (bytes == 0 || gpu.driver->cuMemAlloc(&allocation, bytes) != CUDA_SUCCESS) {
    why = gpu.name() + " refuses one block of " + std::to_string(bytes) + " bytes";
    return nullptr;
  }
  std::unique_ptr<MallocDevice> made(new MallocDevice(gpu, allocation, bytes));
  if (made->block_bytes() != 0) return made;
  why = gpu.name() + " gives a block without one whole page";
  return nullptr;
}

// Drivers align a block of that size to 2 MiB, though none promises it: else a page is lost.
MallocDevice::MallocDevice(const Gpu& gpu, CUdeviceptr allocation, std::size_t bytes)
    : CudaDevice(gpu),
      allocation_(allocation),
      first_(reinterpret_cast<std::byte*>(page_at_or_after(allocation))),
      end_(reinterpret_cast<std::byte*>(page_at_or_before(allocation + bytes))) {
  note_driver_gave();
}

MallocDevice::~MallocDevice() {
  const Within within(gpu_);
  gpu_.driver->cuMemFree(allocation_);
}

std::byte* MallocDevice::reserve(std::size_t bytes) noexcept {
  bytes = page_at_or_after(bytes);
  std::byte* at = first_;
  for (const auto& [first, taken] : ranges_) {
    if (static_cast<std::size_t>(first - at) >= bytes) break;
    at = first + taken;
  }
  if (static_cast<std::size_t>(end_ - at) < bytes) return nullptr;
  try {
    ranges_.emplace(at, bytes);
  } catch (...) {
    return nullptr;
  }
  return at;
}

void MallocDevice::release(std::byte* base, std::size_t) noexcept { ranges_.erase(base); }

bool MallocDevice::commit(std::byte* first, std::size_t bytes) noexcept {
  note_commit(first, bytes);
  return true;
}

bool MallocDevice::decommit(std::byte* first, std::size_t bytes) noexcept {
  note_decommit(first, bytes);
  return true;
}

}  // namespace reprise::cuda
