#include "allocator/cuda/cuda_device.hpp"

#include <algorithm>
#include <utility>

namespace reprise::cuda {

void CudaDevice::note_commit(const std::byte* first, std::size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.now += bytes;
  committed_.given += bytes;
  committed_.peak = std::max(committed_.peak, committed_.now);
  note_change(first, bytes, true);
}

void CudaDevice::note_decommit(const std::byte* first, std::size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.now -= bytes;
  committed_.taken_back += bytes;
  note_change(first, bytes, false);
}

void CudaDevice::note_driver_gave() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.driver_gave++;
}

void CudaDevice::note_driver_took() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.driver_took++;
}

void CudaDevice::note_change(const std::byte* first, std::size_t bytes, bool committed) noexcept {
  if (!keeps_changes_) return;
  try {
    changes_.push_back({first, bytes, committed});
  } catch (...) {
  }
}

void CudaDevice::keep_changes(bool wanted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  keeps_changes_ = wanted;
  if (!wanted) changes_.clear();
}

std::vector<PageChange> CudaDevice::take_changes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(changes_, {});
}

Committed CudaDevice::committed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return committed_;
}

void CudaDevice::reset_peak() {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_.peak = committed_.now;
}

void CudaDevice::reset_totals() {
  const std::lock_guard<std::mutex> lock(mutex_);
  committed_ = {.now = committed_.now, .peak = committed_.peak};
}

}  // namespace reprise::cuda
