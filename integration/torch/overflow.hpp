// Overflow: memory in an unlinked temporary file, for the two cases in which the cap must not be exceeded and the step should still come to its end:
// a learning Pass that does not fit (what it measures there tells the smallest budget that would do), and a Plan that misses its prediction by little,
// because the heap's holes are not those that were simulated (the next Plan is made for so much less).
//
// The file lies in REPRISE_OVERFLOW_DIR, TMPDIR, /var/tmp or /tmp, whichever comes first that is not itself memory (tmpfs). It is not part of reserved
// bytes; how much was needed is counted and reported.
//
// A CUDA device's kernels cannot work in a file: there the place is host memory that the driver has pinned (use_place()), and it is for learning Passes only.
//
// Threads: everything may be called from any thread. Nothing throws.
#pragma once

#include <atomic>
#include <cstddef>

namespace reprise::overflow {

inline constinit std::atomic<std::size_t> live{0};  // bytes in the file; written by overflow.cpp only

// Counted: as many forbid() as allow() end it. limit_bytes: of the last allow(). The peak starts anew with each.
void allow(std::size_t limit_bytes) noexcept;
void forbid() noexcept;
bool allowed() noexcept;
bool has_room(std::size_t bytes) noexcept;                                                 // under the limit of the last allow()
void* allocate(std::size_t bytes) noexcept;                                                // nullptr: no such folder, or its device is full
bool deallocate(void* pointer) noexcept;                                                   // false: not ours
std::size_t size_of(const void* pointer) noexcept;                                         // 0: not ours
std::size_t first_asked_bytes() noexcept;                                                  // the first request since allow(true) that came here; 0: none did
inline std::size_t live_bytes() noexcept { return live.load(std::memory_order_acquire); }  // asked at every allocation and free
std::size_t peak_bytes() noexcept;

struct Place {
  void* (*take)(std::size_t bytes);  // nullptr: it has no more
  void (*give)(void* pointer);
};
void use_place(const Place* place) noexcept;  // for what is asked for from now on; nullptr: the file. It must live as long as the process

}  // namespace reprise::overflow
