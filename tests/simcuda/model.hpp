// The simulated CUDA devices: the state behind the replacements of libcuda, libcudart and the BLAS libraries. It lives in libcuda.so.1 and holds no kernel:
// what a kernel would compute is either skipped, or given as host work (enqueue's `run`, numeric.cpp). Device memory is host memory.
//
// Words. Clock: virtual host time in nanoseconds; every call and every piece of work costs some, so events and queries mean something and repeat exactly.
// Late: with SIMCUDA_LATE=1 the work of a stream that is not the default one runs only when a wait, a query that succeeds or a synchronisation demands it.
// Hollow: with SIMCUDA_HOLLOW=1 no memory of the host stands behind the device's until it is written, and what is large is not written: devices of terabytes.
// Shown: what a program is told about the device's size, where it may take more than that (SIMCUDA_SHOWN_MIB).
//
// C1: used == sum of charged sizes of live allocations and physical handles <= total
// C2: allocations holds each live address range once, none overlap
// C3: a stream's ready never goes back
// C4: a capturing stream runs nothing: its work becomes nodes of its graph
//
// Threads: every function takes state().mutex, which is recursive because deferred work may call back into the runtime.
// Failure: functions that can fail return the CUDA error code; a broken caller's mistake is printed on stderr.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define SIMCUDA_API extern "C" __attribute__((visibility("default")))
#define SIMCUDA_SHARED __attribute__((visibility("default")))

namespace simcuda {

using Nanoseconds = std::int64_t;
using Work = std::function<void()>;

inline constexpr std::size_t kPageBytes = std::size_t{2} << 20;  // what the driver hands out
inline constexpr int kOutOfMemory = 2, kInvalidValue = 1, kUnknownError = 999;

struct Graph;

struct Node {
  Graph* graph;
  std::vector<Node*> after;
  Work run;  // may be empty
  Nanoseconds cost;
};

struct UserObject {
  void* pointer;
  void (*destroy)(void*);
  unsigned references;
};

// A captured graph's content, shared with what was instantiated from it.
struct SIMCUDA_SHARED GraphContent {
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<UserObject*> objects;
  ~GraphContent();
};

struct Graph {
  std::shared_ptr<GraphContent> content = std::make_shared<GraphContent>();
};

struct Stream {
  std::uint64_t id = 0;
  int device = 0;
  int priority = 0;
  unsigned flags = 0;
  Nanoseconds ready = 0;  // when all work queued so far is finished
  Graph* capture = nullptr;
  std::uint64_t capture_id = 0;
  bool capture_began_here = false;
  std::vector<Node*> tail;  // the nodes that captured work comes after
  std::deque<Work> queue;   // late: not yet run
  std::uint64_t issued = 0, done = 0;
};

struct SIMCUDA_SHARED Event {
  explicit Event(unsigned given_flags);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  bool takes_time() const { return (flags & 2) == 0; }  // the bit is "disable timing", in the runtime and the driver

  const unsigned flags;
  bool recorded = false;
  Nanoseconds time = 0;
  Graph* capture = nullptr;
  std::uint64_t capture_id = 0;
  std::vector<Node*> tail;
  Stream* stream = nullptr;  // late: what must have run, and how much of it
  std::uint64_t mark = 0;
};

enum class Kind { kDevice, kHost, kMapped };

struct Allocation {
  std::size_t bytes;
  int device;
  Kind kind;
  int file = -1;  // shared with other processes: what stands behind it
};

struct Device {
  std::size_t total = 0, shown = 0, used = 0, peak = 0;
  std::uint64_t launches = 0;
  Stream default_stream;
  std::vector<std::unique_ptr<Stream>> streams;     // never destroyed: events may still name them
  int memory_file = -1;                             // physical memory of the virtual memory management
  std::map<std::size_t, std::size_t> free_extents;  // of memory_file: offset -> bytes
  void charge(std::size_t bytes);
};

struct CallCount {
  std::uint64_t calls = 0;
  std::uint64_t failing_call = 0;  // this call, counted from the first, fails; 0: none
};

enum class WorkKind { kKernel, kCopy, kFill, kOther };
// Told of work as it is queued, with the times between which it runs on the virtual clock; nullptr: nobody. Not of captured work.
using Watcher = void (*)(const Stream& stream, WorkKind kind, Nanoseconds start, Nanoseconds end);

struct State {
  std::recursive_mutex mutex;
  std::deque<Device> devices;
  std::map<std::uintptr_t, Allocation> allocations;
  std::map<std::string, CallCount> calls;
  std::uint64_t timing_events = 0;  // that exist
  Nanoseconds clock = 0;
  std::uint64_t next_id = 1;
  bool late = false;
  bool log = false;
  bool hollow = false;
  bool maps_memory = true;  // SIMCUDA_MAPS=0: a device without virtual memory management
  int capability = 80;
  std::string name = "Simulated CUDA device";
  Watcher watcher = nullptr;
  double device_bytes_per_nanosecond = 2'000, operations_per_nanosecond = 400e3;
};

inline constexpr Nanoseconds kLaunchCost = 3'000, kKernelCost = 8'000, kMallocCost = 20'000, kQueryCost = 500;
inline constexpr double kHostBytesPerNanosecond = 25;
inline constexpr std::size_t kHollowBytes = std::size_t{1} << 20;  // hollow: copies and fills of more are not made

SIMCUDA_SHARED State& state();
SIMCUDA_SHARED int& current_device();
SIMCUDA_SHARED Stream& stream_of(void* handle);  // 0, 1 and 2 name the default stream of the current device

SIMCUDA_SHARED void set_watcher(Watcher watcher);

// Puts work at the end of a stream; a capturing stream makes it a node that runs at every replay.
SIMCUDA_SHARED void enqueue(void* stream, Nanoseconds cost, Work run = {}, WorkKind kind = WorkKind::kKernel);
SIMCUDA_SHARED Stream& make_stream(unsigned flags, int priority);  // on the current device
SIMCUDA_SHARED bool runs_late(const Stream& stream);
SIMCUDA_SHARED void drain(Stream& stream, std::uint64_t mark = UINT64_MAX);  // runs late work up to the mark
SIMCUDA_SHARED void synchronize(int device);

SIMCUDA_SHARED int record(Event& event, Stream& stream);
SIMCUDA_SHARED int query(Event& event);    // 0, 600 (not ready) or 907 (captured)
SIMCUDA_SHARED int query(Stream& stream);  // 0, 600 or 900 (capturing)
SIMCUDA_SHARED int synchronize(Stream& stream);
SIMCUDA_SHARED int synchronize(Event& event);
SIMCUDA_SHARED int wait(Stream& stream, Event& event);

SIMCUDA_SHARED int allocate(int device, std::size_t bytes, void** pointer);
SIMCUDA_SHARED int deallocate(void* pointer);
SIMCUDA_SHARED bool find(const void* pointer, std::uintptr_t* base, Allocation* allocation);
SIMCUDA_SHARED void* driver_function(const char* name);
SIMCUDA_SHARED bool enter(CallCount& count);  // counts a call; true if it is the one that fails
SIMCUDA_SHARED CallCount& call_count(const char* name);

inline std::size_t charged(std::size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }  // what an allocation takes of the device

inline Nanoseconds copy_cost(double bytes, double bytes_per_nanosecond) { return static_cast<Nanoseconds>(bytes / bytes_per_nanosecond); }

}  // namespace simcuda

#define SIMCUDA_LOCK const std::lock_guard<std::recursive_mutex> simcuda_lock(simcuda::state().mutex)
// At the head of a function of the CUDA interface: counts the call. `SIMCUDA_CALL` in a condition is true for the call that shall fail.
#define SIMCUDA_CALL                                                \
  ([](const char* name) {                                           \
    static simcuda::CallCount& counted = simcuda::call_count(name); \
    return simcuda::enter(counted);                                 \
  }(__func__))

// For the generated stubs: notes that a function nobody simulates was called, and returns its library's "not supported".
SIMCUDA_API int simcuda_not_simulated(const char* name, int code);
