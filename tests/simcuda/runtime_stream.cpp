// libcudart: streams and events.
#include <algorithm>

#include "runtime.hpp"

using namespace simcuda;

SIMCUDA_API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (SIMCUDA_CALL) return fail(cudaErrorMemoryAllocation);
  *stream = reinterpret_cast<cudaStream_t>(&make_stream(flags, priority));
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
SIMCUDA_API cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
SIMCUDA_API cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  drain(stream_of(stream));
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamQuery(cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  const int code = query(stream_of(stream));
  return code == cudaErrorNotReady ? cudaErrorNotReady : fail(code);  // "not ready" is no error to remember here
}
SIMCUDA_API cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  return fail(synchronize(stream_of(stream)));
}
SIMCUDA_API cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  *priority = stream_of(stream).priority;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  *flags = stream_of(stream).flags;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  *id = stream_of(stream).id;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  *device = stream_of(stream).device;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  (void)SIMCUDA_CALL;
  return fail(wait(stream_of(stream), event_of(event)));
}
SIMCUDA_API cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  (void)SIMCUDA_CALL;
  enqueue(
      stream, kQueryCost, [=] { function(argument); }, WorkKind::kOther);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void* argument, unsigned) {
  (void)SIMCUDA_CALL;
  enqueue(
      stream, kQueryCost, [=] { function(stream, cudaSuccess, argument); }, WorkKind::kOther);
  return cudaSuccess;
}

SIMCUDA_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (SIMCUDA_CALL) return fail(cudaErrorMemoryAllocation);
  *event = reinterpret_cast<cudaEvent_t>(new Event(flags));
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
SIMCUDA_API cudaError_t cudaEventDestroy(cudaEvent_t event) {
  (void)SIMCUDA_CALL;
  delete reinterpret_cast<Event*>(event);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  return fail(record(event_of(event), stream_of(stream)));
}
SIMCUDA_API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return cudaEventRecord(event, stream); }
SIMCUDA_API cudaError_t cudaEventQuery(cudaEvent_t event) {
  (void)SIMCUDA_CALL;
  const int code = query(event_of(event));
  return code == cudaErrorNotReady ? cudaErrorNotReady : fail(code);
}
SIMCUDA_API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  (void)SIMCUDA_CALL;
  return fail(synchronize(event_of(event)));
}
SIMCUDA_API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t second) {
  SIMCUDA_LOCK;
  const Event &from = event_of(first), &to = event_of(second);
  if (((from.flags | to.flags) & cudaEventDisableTiming) != 0 || !from.recorded || !to.recorded) return fail(cudaErrorInvalidResourceHandle);
  if (std::max(from.time, to.time) > state().clock) return cudaErrorNotReady;
  *milliseconds = static_cast<float>(static_cast<double>(to.time - from.time) / 1e6);
  return cudaSuccess;
}
