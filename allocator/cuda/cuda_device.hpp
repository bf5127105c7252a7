// CudaDevice: memory of one GPU, whichever way it is had, with CUDA events as fences. MappedDevice has it page by page, by virtual memory management;
// MallocDevice, where a driver or a GPU lacks that, from one block. What both are asked alike is here: streams, and the account of what is committed.
//
// Words. Stream, Ticket: event_fences.hpp. Committed: what the allocator asked for and did not give back, whole pages.
//
// G1: committed().now == page_bytes * |pages committed|, and each of them may be read and written by kernels of this device
// G2, G3: event_fences.hpp
//
// Threads: as Device (under the allocator's lock); streams and the account from any thread.
// Failure: as Device. Calls are made with stream capture relaxed: the allocator may need memory while another thread captures a graph.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "allocator/cuda/event_fences.hpp"
#include "allocator/cuda/gpu.hpp"
#include "allocator/device.hpp"

namespace reprise::cuda {

// Bytes committed now, at most, and in all; everything but the first two counts up from reset_totals().
struct Committed {
  std::size_t now = 0;
  std::size_t peak = 0;  // since reset_peak()
  std::size_t given = 0;
  std::size_t taken_back = 0;
  std::uint64_t driver_gave = 0;  // how often the driver was asked for memory, and gave it
  std::uint64_t driver_took = 0;
};

struct PageChange {
  const std::byte* first = nullptr;
  std::size_t bytes = 0;
  bool committed = false;  // false: given back
};

class CudaDevice : public Device {
 public:
  std::size_t capacity_bytes() const noexcept override { return gpu_.capacity_bytes; }
  virtual std::size_t block_bytes() const noexcept { return 0; }  // all that can ever be committed; 0: what the GPU has
  std::optional<Fence> record_fence(StreamId stream) noexcept override { return fences_.record(stream); }
  bool passed(Fence fence) noexcept override { return fences_.passed(fence); }
  void wait(Fence fence) noexcept override { fences_.wait(fence); }

  StreamId id_of(CUstream stream) { return fences_.id_of(stream); }
  CUstream handle_of(StreamId stream) const { return fences_.handle_of(stream); }
  Committed committed() const;
  void reset_peak();
  void reset_totals();
  void keep_changes(bool wanted);          // from now on: for who records a history of them; what is not taken is dropped with the wish
  std::vector<PageChange> take_changes();  // in order, since the last call; one for which there was no memory is missing

 protected:
  explicit CudaDevice(const Gpu& gpu) : gpu_(gpu), fences_(gpu) {}
  void note_commit(const std::byte* first, std::size_t bytes) noexcept;
  void note_decommit(const std::byte* first, std::size_t bytes) noexcept;
  void note_driver_gave() noexcept;
  void note_driver_took() noexcept;

  const Gpu gpu_;

 private:
  void note_change(const std::byte* first, std::size_t bytes, bool committed) noexcept;

  EventFences fences_;
  mutable std::mutex mutex_;  // of everything below
  Committed committed_;
  bool keeps_changes_ = false;
  std::vector<PageChange> changes_;
};

}  // namespace reprise::cuda
