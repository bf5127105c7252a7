// What the files of the simulated libcudart share: the thread's last error, and their casts.
#pragma once

#include <cuda_runtime_api.h>

#include "model.hpp"

namespace simcuda {

cudaError_t& last_error();

inline cudaError_t fail(int code) {
  const auto error = static_cast<cudaError_t>(code);
  if (error != cudaSuccess) last_error() = error;
  return error;
}

inline Event& event_of(cudaEvent_t event) { return *reinterpret_cast<Event*>(event); }
inline Graph& graph_of(cudaGraph_t graph) { return *reinterpret_cast<Graph*>(graph); }

}  // namespace simcuda
