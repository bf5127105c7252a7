// KernelClock by CUPTI's activity records: a kernel's record has a correlation number, and a record of its own says which external id that number was launched under.
//
// Words. Kind: what CUPTI is asked to record. Ours of external ids is CUSTOM2: torch's own profiler has 0 and 1.
//
// There is one stream of activity records in a process. Whoever registers his buffers takes it from whoever had it, silently: so start() subscribes first, which
// another tool that subscribed makes fail, and the caller asks torch whether its profiler is on, because that one does not subscribe.
//
// Threads: as KernelClock; CUPTI calls back from threads of its own. Cost: two calls a push and pop; records come in buffers of 4 MiB.
// Failure: start() is false and nothing is enabled.
#pragma once

#include "profiler/kernel_clock.hpp"

namespace reprise::cupti {

KernelClock* clock(std::string& why);  // the process's; nullptr where the library cannot be had

}  // namespace reprise::cupti
