// Batch: what a step would need and add at a batch size that was never run, under a budget; from two measured sizes (profiler/scale.hpp).
//
// The budget covers what is live at the step's start (it grows with the batch too: the inputs) and the activations. What the program needs outside the Pass, an
// optimizer's temporaries say, is not in a Profile: a size that fits here may still fail, which is why reprise.largest_batch runs what it names.
// Cost: one plan(): tenths of a second. Threads: none. Failure: std::invalid_argument as scaled() and Scheme::parse().
#pragma once

#include <cstdint>
#include <string>

#include "policy/planner.hpp"

namespace reprise {

struct BatchPrediction {
  bool fits = false;
  int64_t start_bytes = 0;   // live when the step starts
  int64_t needed_bytes = 0;  // the budget that is used: start and the Plan's peak; where it does not fit, the smallest one that would (0: not known)
  int64_t plain_bytes = 0;   // activation bytes when everything is kept
  double added_seconds = 0;  // by the Plan
  int64_t useful_flops = 0;  // forward and backward once
};

struct MeasuredBatch {
  int64_t batch = 0;
  Profile profile;
};

BatchPrediction predict_batch(const MeasuredBatch& first, const MeasuredBatch& second, int64_t batch, int64_t budget_bytes, const std::string& policy = "auto",
                              const PlannerOptions& options = {});

}  // namespace reprise
