// The device that the budget is about, and its core: the CPU's, until a model on a CUDA device is given a budget.
//
// One device at a time: what lies on another one is neither recorded nor capped. Threads: any; a change takes effect for the next Pass.
#pragma once

#include <c10/core/Device.h>

#include "allocator/caching_allocator.hpp"
#include "policy/simulate.hpp"

namespace reprise {

c10::Device budgeted_device();
CachingAllocator& budgeted_core();
inline bool budget_is_on_cpu() { return budgeted_device().is_cpu(); }
void choose_budgeted_device(
    c10::Device device);             // throws std::invalid_argument where that device's memory is not served by us; the budget of another is lifted
bool set_budget(std::size_t bytes);  // kNoCap: none; false: what is live does not fit, and the budget is as before
std::size_t budgeted_capacity();     // bytes of the device
HeapShape heap_shape();              // how that core cuts its memory, for simulations

}  // namespace reprise
