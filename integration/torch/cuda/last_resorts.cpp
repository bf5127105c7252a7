// CudaAllocator where memory has run out: pinned host memory in its place, or the error that says so.
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>

#include <cstdlib>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/cpu_allocator.hpp"
#include "integration/torch/cuda/cuda_allocator.hpp"
#include "integration/torch/overflow.hpp"

namespace reprise::cuda {

using c10::CachingAllocator::format_size;

void CudaAllocator::throw_out_of_memory(DeviceMemory& memory, std::size_t bytes, cudaStream_t stream) {
  memory.count_out_of_memory();
  const auto [free_bytes, total_bytes] = native_.getMemoryInfo(memory.index());
  if (history_.wanted()) history_.ran_out(memory.index(), free_bytes, bytes, stream, history_.context(RecordContext::STATE));
  std::vector<torch_allocator::OutOfMemoryObserver> observers;
  {
    const std::lock_guard<std::mutex> lock(observers_mutex_);
    observers = observers_;
  }
  const Statistics now = memory.core().statistics();
  for (const auto& observer : observers) observer(memory.index(), bytes, total_bytes, free_bytes);
  const std::size_t limit = memory.limit();
  const std::string of_block = memory.block_bytes() == 0 ? "" : " of its block of " + format_size(memory.block_bytes());
  TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", format_size(bytes), ". GPU ", static_cast<int>(memory.index()),
                   " has a total capacity of ", format_size(total_bytes), " of which ", format_size(free_bytes), " is free. reprise holds ",
                   format_size(now.reserved_bytes), of_block, ", of which ", format_size(now.live_bytes), " is live; torch's own allocator holds ",
                   format_size(static_cast<std::size_t>(reserved_by_native(memory.index()))), "; the limit on both is ",
                   limit == kNoCap ? std::string("the device") : format_size(limit), ".");
  std::abort();  // not reached: the check throws
}

void* CudaAllocator::take_overflow(c10::DeviceIndex device, std::size_t bytes) {
  if (!overflow::allowed() || !routes_.none() || budgeted_device() != c10::Device(c10::DeviceType::CUDA, device)) return nullptr;
  void* const pointer = overflow::allocate(bytes);
  if (pointer != nullptr) tell_of_overflow(pointer, static_cast<long long>(bytes));
  return pointer;
}

bool CudaAllocator::give_overflow_back(void* pointer) {
  const std::size_t bytes = overflow::size_of(pointer);
  if (bytes == 0) return false;
  if (budgeted_device().is_cuda()) {
    const c10::cuda::CUDAGuard there(budgeted_device());
    c10::cuda::device_synchronize();
  }
  tell_of_overflow(pointer, -static_cast<long long>(bytes));
  return overflow::deallocate(pointer);
}

}  // namespace reprise::cuda
