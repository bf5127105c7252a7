// CudaDevice: memory of one GPU by virtual memory management. Addresses are reserved once; behind each committed page lies a physical allocation of its own,
// so that any page may be given back. Fences are CUDA events.
//
// Words. Stream: a CUstream; StreamId numbers those that were seen, 0 is the device's default stream. Ticket: how many events were recorded on a stream so far.
//
// G1: committed() == page_bytes * |pages mapped|, and each of them may be read and written by kernels of this device
// G2: a stream's outstanding events are those of the tickets (completed, issued], in order
// G3: no fence is recorded on a stream that captures: record_fence() answers nothing, and the allocator asks again later
//
// cudaMalloc is no second way here: it gives addresses and memory together, so nothing could be given back from between live pieces. A device without virtual
// memory management (make() says so) stays with torch's own allocator.
//
// Threads: as Device (under the allocator's lock); id_of(), handle_of() and committed() from any thread.
// Cost: a commit is three driver calls a page, and no device call is made in a repeating sequence of allocations.
// Failure: as Device. Calls are made with stream capture relaxed: the allocator may need memory while another thread captures a graph.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "allocator/cuda/driver.hpp"
#include "allocator/device.hpp"

namespace reprise::cuda {

// Bytes committed now, at most, and in all; the last two count up from reset_totals().
struct Committed {
  std::size_t now = 0;
  std::size_t peak = 0;  // since reset_peak()
  std::size_t given = 0;
  std::size_t taken_back = 0;
  std::uint64_t commits = 0;
  std::uint64_t decommits = 0;
};

struct PageChange {
  const std::byte* first = nullptr;
  std::size_t bytes = 0;
  bool committed = false;  // false: given back
};

class CudaDevice final : public Device {
 public:
  // nullptr, and `why` in words, where the driver or the device cannot do it.
  static std::unique_ptr<CudaDevice> make(int ordinal, std::string& why);

  std::size_t page_bytes() const noexcept override { return page_bytes_; }
  std::size_t capacity_bytes() const noexcept override { return capacity_bytes_; }
  std::byte* reserve(std::size_t bytes) noexcept override;
  void release(std::byte* base, std::size_t bytes) noexcept override;
  bool commit(std::byte* first, std::size_t bytes) noexcept override;
  bool decommit(std::byte* first, std::size_t bytes) noexcept override;
  std::optional<Fence> record_fence(StreamId stream) noexcept override;
  bool passed(Fence fence) noexcept override;
  void wait(Fence fence) noexcept override;

  StreamId id_of(CUstream stream);  // the same number for the same handle; throws std::bad_alloc
  CUstream handle_of(StreamId stream) const;
  Committed committed() const;
  void reset_peak();
  void reset_totals();
  void keep_changes(bool wanted);          // from now on: for who records a history of them; what is not taken is dropped with the wish
  std::vector<PageChange> take_changes();  // in order, since the last call; one for which there was no memory is missing

 private:
  struct Stream {
    CUstream handle = nullptr;
    std::uint64_t issued = 0;
    std::uint64_t completed = 0;
    std::deque<CUevent> outstanding;
  };

  CudaDevice(const Driver& driver, int ordinal, CUcontext context, std::size_t page_bytes, std::size_t capacity_bytes);
  bool map_page(CUdeviceptr page) noexcept;
  CUevent take_event() noexcept;
  void note_change(const std::byte* first, std::size_t bytes, bool committed) noexcept;
  bool has_passed(Stream& stream, std::uint64_t ticket) const noexcept { return ticket <= stream.completed; }
  void complete(Stream& stream, std::uint64_t ticket);

  const Driver& driver_;
  const int ordinal_;
  const CUcontext context_;
  const std::size_t page_bytes_;
  const std::size_t capacity_bytes_;
  mutable std::mutex mutex_;  // of everything below
  Committed committed_;
  bool keeps_changes_ = false;
  std::vector<PageChange> changes_;
  std::deque<Stream> streams_;  // by StreamId
  std::unordered_map<CUstream, StreamId> ids_;
  std::vector<CUevent> spare_events_;
};

}  // namespace reprise::cuda
