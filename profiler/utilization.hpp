// MFU and HFU: what share of the machine's roof a step uses. MFU counts useful work only; HFU counts what runs again as well, so HFU >= MFU.
#pragma once

#include <cstdint>

#include "profiler/peak.hpp"

namespace reprise {

// useful_flops: forward and backward once. Both throw std::invalid_argument for a time or roof that is not positive, or negative work.
double model_flops_utilization(int64_t useful_flops, double step_seconds, const MachinePeak& peak);
double hardware_flops_utilization(int64_t useful_flops, int64_t replayed_flops, double step_seconds, const MachinePeak& peak);

}  // namespace reprise
