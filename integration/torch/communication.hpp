// Communication: what collectives take of memory, seen where they pass the dispatcher; for the report.
//
// gathered: parameters of other ranks, there for as long as a unit of FSDP uses them. buffers: what collectives were handed otherwise: what an all-gather
// brings, gradients on their way, DDP's buckets. Functional collectives (tensor parallel) work on activations and count as such.
// Threads: any. Cost: a few look-ups for each collective, nothing otherwise.
#pragma once

#include <ATen/core/stack.h>

#include <cstdint>

#include "integration/torch/operator_facts.hpp"

namespace reprise::engine {

struct CommunicationPeaks {
  int64_t gathered_bytes = 0, buffer_bytes = 0;
};

void note_communication(const OperatorFacts& facts, const torch::jit::Stack& stack);  // before the operator runs
CommunicationPeaks communication_peaks();                                             // since the last reset
void reset_communication_peaks();

}  // namespace reprise::engine
