// Report: what was measured, decided, predicted, and what really happened, as text and as JSON. Made from plain values; knows no torch type.
#pragma once

#include <optional>
#include <string>

#include "integration/cpp/reprise.hpp"
#include "policy/plan.hpp"
#include "profiler/profile.hpp"

namespace reprise {

struct ReportInput {
  int64_t budget_bytes = 0;
  std::string policy, infeasible, before;  // before: what was allocated when reprise was installed, in words
  MemoryStats memory;
  std::string counters_json;
  std::optional<Profile> profile;
  std::optional<Plan> plan;
  int64_t infeasible_limit_bytes = 0, smallest_limit_bytes = 0, predicted_peak_bytes = 0, measured_peak_bytes = 0, learning_peak_bytes = 0;
  double measured_seconds = 0, measured_added_seconds = 0, learning_seconds = 0, plan_seconds = 0;
  int64_t passes = 0;
  int64_t parameter_bytes = 0, gathered_bytes = 0, communication_bytes = 0;  // this rank's parameters; peaks of the others' and of collectives' buffers
  std::string clock_source;                                                  // of the Ops' seconds on a device; "" on the CPU
  uint64_t clock_dropped = 0;
  double clock_unclaimed_seconds = 0;
  std::string ranks_json;  // what ranks agreed on; "" where the process is alone
};

std::string report_as_json(const ReportInput& input);
std::string report_as_text(const std::string& json);

}  // namespace reprise
