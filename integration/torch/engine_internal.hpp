// What the files of the engine share and nobody else sees: the threads' state, replay, and the process-wide registry.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include <memory>

#include "integration/torch/pass.hpp"

namespace reprise::engine {

struct ThreadState {
  std::shared_ptr<Pass> pass;  // being recorded, or last recorded, on this thread
  bool records = false;        // a Pass was begun on this thread
  int keep_depth = 0;          // inside keep()
  bool armed = false;
  // Armed in the middle of an operator, which is not seen any more; the kernels it calls are, and would be taken for the program's own.
  // Nothing is recorded until a tensor is saved after something was seen.
  bool armed_midway = false, seen_since = false;
};
ThreadState& thread_state();

bool is_number(const c10::IValue& argument);  // a number, a flag, a device, nothing, or a list of those: two of them can be compared

// Runs a Group (or, with group == nullptr, the closure of the trigger) and leaves its results in the Pass's Values. The Pass's mutex is held.
void replay(Pass& pass, int32_t trigger, const Group* group);
size_t give_up_retained(Replay& replay, size_t bytes);  // pressure inside a replay: what it made for later may be made again later
void replay_everything(Pass& pass);                     // R11's check: replays all Ops once and compares fingerprints

}  // namespace reprise::engine
