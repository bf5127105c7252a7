// process_barrier(): after it, every other running thread of this process has passed a full memory barrier.
//
// It makes a pair of barriers one-sided: the frequent side needs none at all, the rare side pays for both (a system call, some microseconds).
// Threads: any. Failure: false where the kernel has no such call; then nothing may rely on it.
#pragma once

namespace reprise {

bool process_barrier() noexcept;

}  // namespace reprise
