// libcudart: stream capture and graphs. Copies, fills and host work act at replay; kernels only advance the clock.
#include <algorithm>
#include <utility>

#include "runtime.hpp"

using namespace simcuda;

namespace {

struct Executable {
  std::shared_ptr<GraphContent> content;
};

cudaError_t begin(cudaStream_t handle, Graph* graph) {
  SIMCUDA_LOCK;
  Stream& stream = stream_of(handle);
  if (&stream == &state().devices[static_cast<std::size_t>(stream.device)].default_stream) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream.capture != nullptr) return fail(cudaErrorIllegalState);
  stream.capture = graph;
  stream.capture_id = state().next_id++;
  stream.capture_began_here = true;
  stream.tail.clear();
  return cudaSuccess;
}

cudaError_t instantiate(cudaGraphExec_t* executable, cudaGraph_t graph) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Executable{graph_of(graph).content});
  return cudaSuccess;
}

cudaGraphNode_t handle_of(Node* node) { return reinterpret_cast<cudaGraphNode_t>(node); }

}  // namespace

SIMCUDA_API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  static thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
  std::swap(current, *mode);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream_of(stream).capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
                                                 const cudaGraphNode_t** dependencies, const cudaGraphEdgeData** edges, std::size_t* count) {
  Stream& stream = stream_of(handle);
  *status = stream.capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (id != nullptr) *id = stream.capture_id;
  if (graph != nullptr) *graph = reinterpret_cast<cudaGraph_t>(stream.capture);
  if (dependencies != nullptr) *dependencies = reinterpret_cast<const cudaGraphNode_t*>(stream.tail.data());
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = stream.tail.size();
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  (void)SIMCUDA_CALL;
  return begin(stream, new Graph);
}
SIMCUDA_API cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t*, const cudaGraphEdgeData*, std::size_t,
                                                      cudaStreamCaptureMode) {
  (void)SIMCUDA_CALL;
  return begin(stream, &graph_of(graph));
}
SIMCUDA_API cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t handle, cudaGraphNode_t* dependencies, const cudaGraphEdgeData*, std::size_t count,
                                                            unsigned flags) {
  SIMCUDA_LOCK;
  Stream& stream = stream_of(handle);
  if (stream.capture == nullptr) return fail(cudaErrorIllegalState);
  if (flags == cudaStreamSetCaptureDependencies) stream.tail.clear();
  for (std::size_t i = 0; i < count; i++) stream.tail.push_back(reinterpret_cast<Node*>(dependencies[i]));
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  (void)SIMCUDA_CALL;
  SIMCUDA_LOCK;
  Stream& origin = stream_of(handle);
  if (origin.capture == nullptr || !origin.capture_began_here) return fail(cudaErrorIllegalState);
  Graph* const captured = origin.capture;
  for (Device& device : state().devices)
    for (auto& stream : device.streams) {
      if (stream->capture != captured) continue;
      stream->capture = nullptr;
      stream->capture_id = 0;
      stream->capture_began_here = false;
      stream->tail.clear();
    }
  *graph = reinterpret_cast<cudaGraph_t>(captured);
  return cudaSuccess;
}

SIMCUDA_API cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = reinterpret_cast<cudaGraph_t>(new Graph);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) { return instantiate(executable, graph); }
SIMCUDA_API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return instantiate(executable, graph);
}
SIMCUDA_API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  const auto& all = graph_of(graph).content->nodes;
  for (std::size_t i = 0; nodes != nullptr && i < std::min(*count, all.size()); i++) nodes[i] = handle_of(all[i].get());
  *count = all.size();
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* dependencies, cudaGraphEdgeData* edges, std::size_t* count) {
  const auto& all = reinterpret_cast<Node*>(node)->after;
  for (std::size_t i = 0; i < std::min(*count, all.size()); i++) {
    if (dependencies != nullptr) dependencies[i] = handle_of(all[i]);
    if (edges != nullptr) edges[i] = {};
  }
  *count = all.size();
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  (void)SIMCUDA_CALL;
  for (const auto& node : reinterpret_cast<Executable*>(executable)->content->nodes) enqueue(stream, node->cost, node->run);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete &graph_of(graph);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Executable*>(executable);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) { return cudaSuccess; }

SIMCUDA_API cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* pointer, cudaHostFn_t destroy, unsigned references, unsigned) {
  *object = reinterpret_cast<cudaUserObject_t>(new UserObject{pointer, destroy, references});
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaUserObjectRelease(cudaUserObject_t handle, unsigned count) {
  auto* const object = reinterpret_cast<UserObject*>(handle);
  object->references -= count;
  if (object->references > 0) return cudaSuccess;
  object->destroy(object->pointer);
  delete object;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t handle, unsigned count, unsigned flags) {
  auto* const object = reinterpret_cast<UserObject*>(handle);
  if ((flags & cudaGraphUserObjectMove) == 0) object->references += count;
  graph_of(graph).content->objects.insert(graph_of(graph).content->objects.end(), count, object);
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceGetGraphMemAttribute(int, cudaGraphMemAttributeType, void* value) {
  *static_cast<std::uint64_t*>(value) = 0;
  return cudaSuccess;
}
SIMCUDA_API cudaError_t cudaDeviceSetGraphMemAttribute(int, cudaGraphMemAttributeType, void*) { return cudaSuccess; }
