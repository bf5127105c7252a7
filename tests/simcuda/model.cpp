#include "model.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simcuda {

namespace {

long setting(const char* name, long fallback) {
  const char* const text = std::getenv(name);
  return text == nullptr || *text == '\0' ? fallback : std::atol(text);
}

double rate(const char* name, double fallback) {
  const char* const text = std::getenv(name);
  return text == nullptr || *text == '\0' ? fallback : std::atof(text);
}

State* make_state() {
  auto* const made = new State;
  made->log = setting("SIMCUDA_LOG", 0) != 0;
  made->late = setting("SIMCUDA_LATE", 0) != 0;
  made->hollow = setting("SIMCUDA_HOLLOW", 0) != 0;
  made->maps_memory = setting("SIMCUDA_MAPS", 1) != 0;
  made->capability = static_cast<int>(setting("SIMCUDA_CAPABILITY", 80));
  if (const char* const name = std::getenv("SIMCUDA_NAME"); name != nullptr && *name != '\0') made->name = name;
  made->device_bytes_per_nanosecond = rate("SIMCUDA_GIGABYTES", made->device_bytes_per_nanosecond);                // a second
  made->operations_per_nanosecond = rate("SIMCUDA_TERA_OPERATIONS", made->operations_per_nanosecond / 1e3) * 1e3;  // a second
  made->devices.resize(static_cast<std::size_t>(setting("SIMCUDA_DEVICES", 1)));
  int index = 0;
  for (Device& device : made->devices) {
    device.total = static_cast<std::size_t>(setting("SIMCUDA_MEMORY_MIB", 4096)) << 20;
    device.shown = std::min(device.total, static_cast<std::size_t>(setting("SIMCUDA_SHOWN_MIB", static_cast<long>(device.total >> 20))) << 20);
    device.default_stream.device = index++;
    device.free_extents[0] = device.total;
    if (made->hollow) continue;
    device.memory_file = memfd_create("simcuda", MFD_CLOEXEC);
    if (device.memory_file < 0 || ftruncate(device.memory_file, static_cast<off_t>(device.total)) != 0) std::perror("simcuda: no device memory");
  }
  return made;
}

}  // namespace

GraphContent::~GraphContent() {
  for (UserObject* object : objects) {
    if (--object->references > 0) continue;
    object->destroy(object->pointer);
    delete object;
  }
}

State& state() {
  static State* const the_state = make_state();  // never destroyed: torch frees memory in static destructors
  return *the_state;
}

int& current_device() {
  static thread_local int device = 0;
  return device;
}

CallCount& call_count(const char* name) {
  SIMCUDA_LOCK;
  return state().calls[name];
}

bool enter(CallCount& count) {
  SIMCUDA_LOCK;
  return ++count.calls == count.failing_call;
}

void Device::charge(std::size_t bytes) {
  used += bytes;
  peak = std::max(peak, used);
}

bool find(const void* pointer, std::uintptr_t* base, Allocation* allocation) {
  SIMCUDA_LOCK;
  const auto& all = state().allocations;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto at = all.upper_bound(address);
  if (at == all.begin()) return false;
  --at;
  if (address >= at->first + at->second.bytes) return false;
  *base = at->first;
  *allocation = at->second;
  return true;
}

int allocate(int device_index, std::size_t bytes, void** pointer) {
  SIMCUDA_LOCK;
  *pointer = nullptr;
  if (bytes == 0) return 0;
  Device& device = state().devices[static_cast<std::size_t>(device_index)];
  const std::size_t size = charged(bytes);
  if (size > device.total - device.used) return kOutOfMemory;
  void* const mapped = mmap(nullptr, size + kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return kOutOfMemory;
  auto* const first = static_cast<std::byte*>(mapped);
  auto* const aligned = reinterpret_cast<std::byte*>(charged(reinterpret_cast<std::uintptr_t>(first)));
  if (aligned > first) munmap(first, static_cast<std::size_t>(aligned - first));
  if (aligned < first + kPageBytes) munmap(aligned + size, static_cast<std::size_t>(first + kPageBytes - aligned));
  device.charge(size);
  state().allocations[reinterpret_cast<std::uintptr_t>(aligned)] = {bytes, device_index, Kind::kDevice};
  state().clock += kMallocCost;
  *pointer = aligned;
  return 0;
}

int deallocate(void* pointer) {
  if (pointer == nullptr) return 0;
  SIMCUDA_LOCK;
  const auto at = state().allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (at == state().allocations.end() || at->second.kind != Kind::kDevice) return kInvalidValue;
  synchronize(at->second.device);
  const std::size_t size = charged(at->second.bytes);
  state().devices[static_cast<std::size_t>(at->second.device)].used -= size;
  munmap(pointer, size);
  if (at->second.file >= 0) close(at->second.file);
  state().allocations.erase(at);
  return 0;
}

}  // namespace simcuda

using namespace simcuda;

SIMCUDA_API int simcuda_not_simulated(const char* name, int code) {
  SIMCUDA_LOCK;
  state().calls[name].calls++;
  if (state().log) std::fprintf(stderr, "simcuda: not simulated: %s\n", name);
  return code;
}

// What tests ask for and set, through ctypes (simcuda.py).
SIMCUDA_API std::uint64_t simcuda_calls(const char* name) { return call_count(name).calls; }
SIMCUDA_API void simcuda_fail(const char* name, std::uint64_t nth) {
  SIMCUDA_LOCK;
  CallCount& count = state().calls[name];
  count.failing_call = nth == 0 ? 0 : count.calls + nth;
}
SIMCUDA_API std::uint64_t simcuda_used(int device) { return state().devices[static_cast<std::size_t>(device)].used; }
SIMCUDA_API std::uint64_t simcuda_peak(int device) { return state().devices[static_cast<std::size_t>(device)].peak; }
SIMCUDA_API std::uint64_t simcuda_launches(int device) { return state().devices[static_cast<std::size_t>(device)].launches; }
SIMCUDA_API std::int64_t simcuda_clock() { return state().clock; }

// What numeric mode needs: host work as a part of a stream. `drop` frees `argument` once nobody can run it any more.
SIMCUDA_API void simcuda_enqueue(void* stream, void (*run)(void*), void* argument, void (*drop)(void*)) {
  const std::shared_ptr<void> kept(argument, drop);
  enqueue(stream, kKernelCost, [run, kept] { run(kept.get()); });
}
// Numeric mode computes at once; while somebody times the device's work, by records or by events, the call counts as a kernel.
SIMCUDA_API void simcuda_timed(void* stream) {
  SIMCUDA_LOCK;
  if ((state().watcher != nullptr || state().timing_events > 0) && stream_of(stream).capture == nullptr) enqueue(stream, kKernelCost);
}
SIMCUDA_API int simcuda_runs_late(void* stream) { return runs_late(stream_of(stream)) ? 1 : 0; }
SIMCUDA_API void simcuda_drain(void* stream) { drain(stream_of(stream)); }
