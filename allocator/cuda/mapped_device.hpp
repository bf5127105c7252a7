// MappedDevice: memory of one GPU by virtual memory management. Addresses are reserved once; behind each committed page lies a physical allocation of its own,
// so that any page may be given back, and what is given back is anybody's on this GPU.
//
// Threads, failure: as CudaDevice. Cost: a commit is three driver calls a page, and no device call is made in a repeating sequence of allocations.
#pragma once

#include <memory>
#include <string>

#include "allocator/cuda/cuda_device.hpp"

namespace reprise::cuda {

class MappedDevice final : public CudaDevice {
 public:
  // nullptr, and `why` in words, where the driver or the device cannot do it.
  static std::unique_ptr<MappedDevice> make(const Gpu& gpu, std::string& why);

  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::byte* reserve(std::size_t bytes) noexcept override;
  void release(std::byte* base, std::size_t bytes) noexcept override;
  bool commit(std::byte* first, std::size_t bytes) noexcept override;
  bool decommit(std::byte* first, std::size_t bytes) noexcept override;

 private:
  MappedDevice(const Gpu& gpu, std::size_t page_bytes) : CudaDevice(gpu), page_bytes_(page_bytes) {}
  bool map_page(CUdeviceptr page) noexcept;

  const std::size_t page_bytes_;
};

}  // namespace reprise::cuda
