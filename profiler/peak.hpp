// The machine's roof: floating-point operations per second that the cores can do, measured with a loop of fused multiply-adds.
// Cost: under one second. Threads: starts `threads` of its own. Failure: none; a figure is always measured, its provenance says how.
#pragma once

#include <cstdint>
#include <string>

namespace reprise {

struct MachinePeak {
  double flops_per_second = 0;  // float32, all threads together
  int32_t threads = 1;
  std::string provenance;  // "measured: 2 threads × FMA loop, 8-wide float32, 0.2 s"
};

MachinePeak measure_peak(int32_t threads, double seconds = 0.2);  // throws std::invalid_argument: threads in [1, 4096], seconds in (0, 1]

}  // namespace reprise
