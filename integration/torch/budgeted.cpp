#include "integration/torch/budgeted.hpp"

#include <atomic>
#include <sstream>
#include <stdexcept>

#include "integration/cpp/reprise.hpp"
#include "integration/torch/cpu_allocator.hpp"
#include "integration/torch/cuda_memory.hpp"
#include "integration/torch/placing.hpp"

namespace reprise {

namespace {

std::atomic<int> cuda_index{-1};  // -1: the CPU
std::atomic<CachingAllocator*> core{nullptr};

}  // namespace

c10::Device budgeted_device() {
  const int index = cuda_index.load(std::memory_order_relaxed);
  return index < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

CachingAllocator& budgeted_core() {
  CachingAllocator* const chosen = core.load(std::memory_order_acquire);
  return chosen == nullptr ? cpu_core() : *chosen;
}

void choose_budgeted_device(c10::Device device) {
  if (device == budgeted_device()) return;
  CachingAllocator* const chosen = device.is_cpu() ? &cpu_core() : cuda_memory() == nullptr ? nullptr : cuda_memory()->core_of(device.index());
  if (chosen == nullptr) {
    std::ostringstream text;
    text << "argument model: it is on " << device << ", whose memory is torch's own allocator's; a budget needs it to be served by reprise";
    throw std::invalid_argument(text.str());
  }
  set_budget(kNoCap);
  core = chosen;
  cuda_index = device.is_cpu() ? -1 : device.index();
  overflow::use_place(device.is_cpu() ? nullptr : cuda_memory()->pinned_memory());
}

bool set_budget(std::size_t bytes) { return budget_is_on_cpu() ? cpu_core().set_cap(bytes) : cuda_memory()->set_budget(budgeted_device().index(), bytes); }

std::size_t budgeted_capacity() {
  return budget_is_on_cpu() ? static_cast<std::size_t>(device_bytes()) : cuda_memory()->capacity_bytes(budgeted_device().index());
}

HeapShape heap_shape() {
  const CachingAllocator& heap = budgeted_core();
  return {heap.page_bytes(), heap.rounding_bytes(), heap.small_limit_bytes(), heap.caches(), engine::placement_allowed()};
}

}  // namespace reprise
