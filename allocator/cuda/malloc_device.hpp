// MallocDevice: memory of one GPU from one cuMemAlloc, for GPUs and drivers without virtual memory management.
//
// Words. Block: what cuMemAlloc gave, cut to whole pages. Pages are the account's, as large as MappedDevice's, so that caps, plans and figures mean the same.
//
// G4: ranges that are reserved lie in the block, apart from each other
// G5: committed().now <= block_bytes(); commit() and decommit() call no driver and do not fail
//
// What differs from MappedDevice, for whoever shares the GPU or looks at it:
// * The block is held from the start to the end, whatever is committed of it: nvidia-smi and cudaMemGetInfo show all of it as taken.
// * decommit() is an account: D2 holds for the allocator's cap, and nothing becomes anybody else's on this GPU.
// * Addresses end with the block. What does not fit between live pieces is out of memory there, even if the free bytes together were enough.
// The allocator decommits only what every stream has passed (piece_heap.hpp), so a page may go on to another stream without the wait that an unmapping is.
//
// Threads, failure: as CudaDevice. Cost: two driver calls in a lifetime.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "allocator/cuda/cuda_device.hpp"

namespace reprise::cuda {

class MallocDevice final : public CudaDevice {
 public:
  static constexpr std::size_t kPageBytes = std::size_t{2} << 20;

  // A block of so many bytes, rounded down to pages; nullptr, and `why` in words, where the driver refuses it.
  static std::unique_ptr<MallocDevice> make(const Gpu& gpu, std::size_t bytes, std::string& why);
  ~MallocDevice() override;

  std::size_t page_bytes() const noexcept override { return kPageBytes; }
  std::size_t block_bytes() const noexcept override { return static_cast<std::size_t>(end_ - first_); }
  std::byte* reserve(std::size_t bytes) noexcept override;
  void release(std::byte* base, std::size_t bytes) noexcept override;
  bool commit(std::byte* first, std::size_t bytes) noexcept override;
  bool decommit(std::byte* first, std::size_t bytes) noexcept override;

 private:
  MallocDevice(const Gpu& gpu, CUdeviceptr allocation, std::size_t bytes);

  const CUdeviceptr allocation_;
  std::byte* first_;  // of the block's whole pages
  std::byte* end_;
  std::map<std::byte*, std::size_t> ranges_;  // reserved: first byte -> bytes
};

}  // namespace reprise::cuda
