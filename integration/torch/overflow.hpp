// Overflow: memory in an unlinked temporary file, for the one case in which the cap must not be exceeded and the step must still be seen to its end:
// a learning Pass that does not fit. What it measures there tells the smallest budget that would do; without it nothing could be said.
//
// The file lies in REPRISE_OVERFLOW_DIR, TMPDIR, /var/tmp or /tmp, whichever comes first that is not itself memory (tmpfs). It is not part of reserved
// bytes; how much was needed is counted and reported.
//
// Threads: everything may be called from any thread. Nothing throws.
#pragma once

#include <cstddef>

namespace reprise::overflow {

void allow(bool yes) noexcept;      // counted: as many allow(false) as allow(true) forbid it again
bool allowed() noexcept;
void* allocate(std::size_t bytes) noexcept;          // nullptr: no such folder, or its device is full
bool deallocate(void* pointer) noexcept;             // false: not ours
std::size_t size_of(const void* pointer) noexcept;   // 0: not ours
std::size_t first_asked_bytes() noexcept;  // the first request since allow(true) that came here; 0: none did
std::size_t live_bytes() noexcept;
std::size_t peak_bytes() noexcept;  // since the process began

}  // namespace reprise::overflow
