// libcupti: activity records of the simulated work, as far as kernels, copies, fills and external ids go. What is launched while a graph is captured has none.
//
// Of CUPTI's rules these are kept, because code that breaks them works nowhere else: one subscriber a process; no record of an external id unless the driver's
// calls are recorded too; records lie in buffers that the tool gives, and what finds no room is counted as dropped.
#include <cupti.h>

#include <cstring>
#include <set>
#include <utility>

#include "model.hpp"
#include "profiler/cupti/records.hpp"

using namespace simcuda;

namespace {

struct Recorder {
  bool subscribed = false;
  std::set<CUpti_ActivityKind> enabled;
  CUpti_BuffersCallbackRequestFunc request = nullptr;
  CUpti_BuffersCallbackCompleteFunc complete = nullptr;
  std::uint8_t* buffer = nullptr;
  std::size_t bytes = 0, used = 0, dropped = 0;
  int to_drop = 0;  // the next so many find no room
  std::uint32_t correlation = 0;
};
Recorder& recorder() {
  static auto* const the_recorder = new Recorder;
  return *the_recorder;
}

using External = std::pair<CUpti_ExternalCorrelationKind, std::uint64_t>;
std::vector<External>& pushed() {
  static thread_local std::vector<External> ids;
  return ids;
}

std::size_t bytes_of(CUpti_ActivityKind kind) {
  switch (static_cast<int>(kind)) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: return sizeof(reprise::cupti::KernelRecord);
    case CUPTI_ACTIVITY_KIND_MEMCPY: return sizeof(reprise::cupti::CopyRecord);
    case CUPTI_ACTIVITY_KIND_MEMSET: return sizeof(reprise::cupti::FillRecord);
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: return sizeof(CUpti_ActivityExternalCorrelation);
    default: return 0;
  }
}

void hand_over() {
  Recorder& r = recorder();
  if (r.buffer == nullptr) return;
  std::uint8_t* const full = std::exchange(r.buffer, nullptr);
  r.complete(nullptr, 0, full, r.bytes, r.used);
}

template <class Record>
void put(const Record& record) {
  Recorder& r = recorder();
  if (r.request == nullptr) return;
  if (r.to_drop > 0) {
    r.to_drop--;
    r.dropped++;
    return;
  }
  if (r.buffer != nullptr && r.used + sizeof record > r.bytes) hand_over();
  if (r.buffer == nullptr) {
    std::size_t most = 0;
    r.bytes = r.used = 0;
    r.request(&r.buffer, &r.bytes, &most);
  }
  if (r.buffer == nullptr || sizeof record > r.bytes) {
    r.dropped++;
    return;
  }
  std::memcpy(r.buffer + r.used, &record, sizeof record);
  r.used += sizeof record;
}

bool records(CUpti_ActivityKind kind) { return recorder().enabled.contains(kind); }

template <class Record>
void put_work(CUpti_ActivityKind kind, const Stream& stream, Nanoseconds start, Nanoseconds end) {
  if (!records(kind)) return;
  Record record{};
  record.kind = kind;
  record.start = static_cast<std::uint64_t>(start);
  record.end = static_cast<std::uint64_t>(end);
  record.deviceId = static_cast<std::uint32_t>(stream.device);
  record.streamId = static_cast<std::uint32_t>(stream.id);
  record.correlationId = recorder().correlation;
  if constexpr (requires { record.name; }) record.name = "kernel of the simulated device";
  put(record);
}

void work_was_queued(const Stream& stream, WorkKind kind, Nanoseconds start, Nanoseconds end) {
  recorder().correlation++;
  if (kind == WorkKind::kKernel) put_work<reprise::cupti::KernelRecord>(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, stream, start, end);
  if (kind == WorkKind::kCopy) put_work<reprise::cupti::CopyRecord>(CUPTI_ACTIVITY_KIND_MEMCPY, stream, start, end);
  if (kind == WorkKind::kFill) put_work<reprise::cupti::FillRecord>(CUPTI_ACTIVITY_KIND_MEMSET, stream, start, end);
  if (!records(CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION) || !records(CUPTI_ACTIVITY_KIND_DRIVER)) return;
  std::set<CUpti_ExternalCorrelationKind> seen;
  for (auto id = pushed().rbegin(); id != pushed().rend(); ++id) {
    if (!seen.insert(id->first).second) continue;  // the innermost of each kind
    CUpti_ActivityExternalCorrelation record{};
    record.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
    record.externalKind = id->first;
    record.externalId = id->second;
    record.correlationId = recorder().correlation;
    put(record);
  }
}

CUptiResult watch() {
  set_watcher(recorder().enabled.empty() ? nullptr : &work_was_queued);
  return CUPTI_SUCCESS;
}

}  // namespace

SIMCUDA_API CUptiResult cuptiGetResultString(CUptiResult result, const char** text) {
  *text = result == CUPTI_SUCCESS                                    ? "CUPTI_SUCCESS"
          : result == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED ? "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"
                                                                     : "error of the simulated CUPTI";
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiGetVersion(std::uint32_t* version) {
  *version = CUPTI_API_VERSION;
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiSubscribe(CUpti_SubscriberHandle* subscriber, CUpti_CallbackFunc, void*) {
  if (SIMCUDA_CALL) return CUPTI_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  if (recorder().subscribed) return CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
  recorder().subscribed = true;
  *subscriber = reinterpret_cast<CUpti_SubscriberHandle>(&recorder());
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiUnsubscribe(CUpti_SubscriberHandle) {
  SIMCUDA_LOCK;
  recorder().subscribed = false;
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc request, CUpti_BuffersCallbackCompleteFunc complete) {
  if (SIMCUDA_CALL) return CUPTI_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  recorder().request = request;
  recorder().complete = complete;
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  if (SIMCUDA_CALL) return CUPTI_ERROR_UNKNOWN;
  SIMCUDA_LOCK;
  recorder().enabled.insert(kind);
  return watch();
}
SIMCUDA_API CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) {
  SIMCUDA_LOCK;
  recorder().enabled.erase(kind);
  return watch();
}
SIMCUDA_API CUptiResult cuptiActivityFlushAll(std::uint32_t) {
  SIMCUDA_LOCK;
  hand_over();
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, std::uint32_t, std::size_t* dropped) {
  SIMCUDA_LOCK;
  *dropped = std::exchange(recorder().dropped, 0);
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityGetNextRecord(std::uint8_t* buffer, std::size_t valid_bytes, CUpti_Activity** record) {
  std::uint8_t* const at = *record == nullptr ? buffer : reinterpret_cast<std::uint8_t*>(*record) + bytes_of((*record)->kind);
  if (at >= buffer + valid_bytes) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = reinterpret_cast<CUpti_Activity*>(at);
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, std::uint64_t id) {
  pushed().emplace_back(kind, id);
  return CUPTI_SUCCESS;
}
SIMCUDA_API CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, std::uint64_t* last) {
  for (auto id = pushed().rbegin(); id != pushed().rend(); ++id) {
    if (id->first != kind) continue;
    if (last != nullptr) *last = id->second;
    pushed().erase(std::next(id).base());
    return CUPTI_SUCCESS;
  }
  return CUPTI_ERROR_QUEUE_EMPTY;
}

// For tests.
SIMCUDA_API void simcuda_cupti_drops(int records) {
  SIMCUDA_LOCK;
  recorder().to_drop = records;
}
