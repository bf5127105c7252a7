#include "profiler/utilization.hpp"

#include <cmath>
#include <stdexcept>

namespace reprise {

double hardware_flops_utilization(int64_t useful_flops, int64_t replayed_flops, double step_seconds, const MachinePeak& peak) {
  if (useful_flops < 0) throw std::invalid_argument("useful_flops is " + std::to_string(useful_flops) + ", must be at least 0");
  if (replayed_flops < 0) throw std::invalid_argument("replayed_flops is " + std::to_string(replayed_flops) + ", must be at least 0");
  if (!(step_seconds > 0) || !std::isfinite(step_seconds)) throw std::invalid_argument("step_seconds is " + std::to_string(step_seconds) + ", must be above 0");
  if (!(peak.flops_per_second > 0)) throw std::invalid_argument("peak is " + std::to_string(peak.flops_per_second) + " FLOP/s, must be above 0");
  return (static_cast<double>(useful_flops) + static_cast<double>(replayed_flops)) / step_seconds / peak.flops_per_second;
}

double model_flops_utilization(int64_t useful_flops, double step_seconds, const MachinePeak& peak) {
  return hardware_flops_utilization(useful_flops, 0, step_seconds, peak);
}

}  // namespace reprise
