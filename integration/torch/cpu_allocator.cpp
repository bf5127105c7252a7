#include "integration/torch/cpu_allocator.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "allocator/host/host_device.hpp"
#include "integration/torch/overflow.hpp"

namespace reprise {

namespace {

std::atomic<std::string (*)(std::size_t)> out_of_memory_text{nullptr};
std::atomic<void (*)(void*, long long)> overflow_outlet{nullptr};

std::string amount(std::size_t bytes) {
  char text[64];
  std::snprintf(text, sizeof text, "%zu bytes (%.2f MiB)", bytes, static_cast<double>(bytes) / (1 << 20));
  return text;
}

std::string default_text(std::size_t asked_bytes) {
  const Statistics now = cpu_core().statistics();
  return "reprise: out of memory: asked for " + amount(asked_bytes) + "; live " + amount(now.live_bytes) + ", reserved " + amount(now.reserved_bytes) +
         ", cap " + (now.cap_bytes == kNoCap ? std::string("none") : amount(now.cap_bytes));
}

[[noreturn]] void throw_out_of_memory(std::size_t asked_bytes) {
  std::string text;
  try {
    const auto custom = out_of_memory_text.load(std::memory_order_acquire);
    text = custom != nullptr ? custom(asked_bytes) : default_text(asked_bytes);
  } catch (...) {
    text = default_text(asked_bytes);
  }
  TORCH_CHECK_WITH(OutOfMemoryError, false, text);
  std::abort();  // not reached: the check throws
}

void report(void* pointer, std::int64_t change) {
  const Statistics now = cpu_core().statistics();
  c10::reportMemoryUsageToProfiler(pointer, change, now.live_bytes, now.reserved_bytes, c10::Device(c10::DeviceType::CPU));
}

// From the temporary file where that is allowed; the change is told as the core tells its own.
void* take_overflow(std::size_t bytes) {
  void* const pointer = overflow::allowed() ? overflow::allocate(bytes) : nullptr;
  if (pointer == nullptr) throw_out_of_memory(bytes);
  tell_of_overflow(pointer, static_cast<long long>(bytes));
  return pointer;
}

bool give_overflow_back(void* pointer) {
  const std::size_t bytes = overflow::size_of(pointer);
  if (bytes == 0) return false;
  tell_of_overflow(pointer, -static_cast<long long>(bytes));
  if (c10::memoryProfilingEnabled()) report(pointer, -static_cast<std::int64_t>(bytes));
  return overflow::deallocate(pointer);
}

void give_back(void* pointer) {
  if (pointer == nullptr) return;
  if (overflow::live_bytes() > 0 && give_overflow_back(pointer)) return;
  if (!c10::memoryProfilingEnabled()) return cpu_core().deallocate(pointer);
  const auto bytes = static_cast<std::int64_t>(cpu_core().size_of(pointer));
  cpu_core().deallocate(pointer);
  report(pointer, -bytes);
}

class CpuAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &give_back, cpu};
    void* pointer = cpu_core().allocate(bytes);
    if (pointer == nullptr) pointer = take_overflow(bytes);
    if (c10::memoryProfilingEnabled()) report(pointer, static_cast<std::int64_t>(bytes));
    return {pointer, pointer, &give_back, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* destination, const void* source, std::size_t bytes) const override { default_copy_data(destination, source, bytes); }
};

// Never destroyed: a tensor in a static variable may be freed after every destructor here has run.
c10::Allocator* cpu_allocator() {
  static auto* const allocator = new CpuAllocator;
  return allocator;
}

}  // namespace

CachingAllocator& cpu_core() {
  static CachingAllocator* const core = [] {
    HostOptions options;
    const char* const huge = std::getenv("REPRISE_HUGE_PAGES");
    options.huge_pages = huge == nullptr || std::strcmp(huge, "0") != 0;
    return new CachingAllocator(*new HostDevice(options));
  }();
  return *core;
}

bool install_cpu_allocator() {
  static const bool prepared = [] {
    cpu_core();
    return pthread_atfork([] { cpu_core().before_fork(); }, [] { cpu_core().after_fork_in_parent(); }, [] { cpu_core().after_fork_in_child(); }) == 0;
  }();
  if (!prepared) return false;
  c10::SetCPUAllocator(cpu_allocator(), 255);
  return cpu_allocator_installed();
}

void (*cpu_deleter())(void*) { return &give_back; }

bool cpu_allocator_installed() { return c10::GetCPUAllocator() == cpu_allocator(); }

void tell_of_overflow(void* pointer, long long change) {
  if (const auto tell = overflow_outlet.load(std::memory_order_acquire)) tell(pointer, change);
}

void set_overflow_outlet(void (*tell)(void* pointer, long long change)) { overflow_outlet.store(tell, std::memory_order_release); }

void set_out_of_memory_text(std::string (*text)(std::size_t asked_bytes)) { out_of_memory_text.store(text, std::memory_order_release); }

}  // namespace reprise
