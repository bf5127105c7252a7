#include "profiler/cupti/cupti_clock.hpp"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "profiler/cupti/library.hpp"
#include "profiler/cupti/records.hpp"

namespace reprise::cupti {

namespace {

constexpr std::size_t kBufferBytes = std::size_t{4} << 20, kAlignment = 8;
constexpr auto kOurs = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM2;
// RUNTIME and DRIVER: without the calls' own records there are none of external ids. KERNEL would put kernels one behind the other.
constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET,
                                         CUPTI_ACTIVITY_KIND_RUNTIME,           CUPTI_ACTIVITY_KIND_DRIVER, CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION};

// What the records said so far, by correlation number; records of one launch come in any order.
class Books {
 public:
  void read(const Cupti& cupti, std::uint8_t* buffer, std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    CUpti_Activity* record = nullptr;
    while (cupti.cuptiActivityGetNextRecord(buffer, bytes, &record) == CUPTI_SUCCESS) book(*record);
  }

  KernelTimes close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [correlation, nanoseconds] : work_) {
      const auto id = ids_.find(correlation);
      const double seconds = static_cast<double>(nanoseconds) * 1e-9;
      (id == ids_.end() ? times_.unclaimed_seconds : times_.seconds[id->second]) += seconds;
    }
    work_.clear();
    ids_.clear();
    return std::exchange(times_, {});
  }

 private:
  template <class Record>
  void add(const CUpti_Activity& record) {
    const auto& one = reinterpret_cast<const Record&>(record);
    work_[one.correlationId] += one.end - one.start;
    times_.records++;
  }

  void book(const CUpti_Activity& record) {
    switch (record.kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      case CUPTI_ACTIVITY_KIND_KERNEL: return add<KernelRecord>(record);
      case CUPTI_ACTIVITY_KIND_MEMCPY: return add<CopyRecord>(record);
      case CUPTI_ACTIVITY_KIND_MEMSET: return add<FillRecord>(record);
      case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
        const auto& one = reinterpret_cast<const CUpti_ActivityExternalCorrelation&>(record);
        if (one.externalKind == kOurs) ids_[one.correlationId] = one.externalId;
        return;
      }
      default: return;
    }
  }

  std::mutex mutex_;
  std::unordered_map<std::uint32_t, std::uint64_t> work_, ids_;
  KernelTimes times_;
};

class CuptiClock final : public KernelClock {
 public:
  explicit CuptiClock(const Cupti& cupti) : cupti_(cupti) {}

  bool start(std::string& why) override;
  void push(uint64_t id) override { cupti_.cuptiActivityPushExternalCorrelationId(kOurs, id); }
  void pop() override {
    std::uint64_t last = 0;
    cupti_.cuptiActivityPopExternalCorrelationId(kOurs, &last);
  }
  KernelTimes stop() override;

  // CUPTI's callbacks
  void give_buffer(std::uint8_t** buffer, std::size_t* bytes);
  void take_buffer(std::uint8_t* buffer, std::size_t valid_bytes);

 private:
  bool enable(std::string& why);
  void disable();

  const Cupti& cupti_;
  std::atomic<bool> running_{false};
  CUpti_SubscriberHandle subscriber_ = nullptr;
  Books books_;
  std::mutex buffers_mutex_;
  std::vector<std::uint8_t*> spare_buffers_;
};

CuptiClock* the_clock = nullptr;  // set once, before CUPTI knows the callbacks

void buffer_requested(std::uint8_t** buffer, std::size_t* bytes, std::size_t* most_records) {
  *most_records = 0;  // as many as there is room for
  the_clock->give_buffer(buffer, bytes);
}

void buffer_completed(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid_bytes) { the_clock->take_buffer(buffer, valid_bytes); }

void nothing(void*, CUpti_CallbackDomain, CUpti_CallbackId, const void*) {}

void CuptiClock::give_buffer(std::uint8_t** buffer, std::size_t* bytes) {
  *bytes = kBufferBytes;
  const std::lock_guard<std::mutex> lock(buffers_mutex_);
  if (spare_buffers_.empty()) {
    *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, kBufferBytes));
    if (*buffer == nullptr) *bytes = 0;
    return;
  }
  *buffer = spare_buffers_.back();
  spare_buffers_.pop_back();
}

void CuptiClock::take_buffer(std::uint8_t* buffer, std::size_t valid_bytes) {
  if (buffer == nullptr) return;
  if (running_) books_.read(cupti_, buffer, valid_bytes);
  const std::lock_guard<std::mutex> lock(buffers_mutex_);
  spare_buffers_.push_back(buffer);
}

bool CuptiClock::enable(std::string& why) {
  CUptiResult result = cupti_.cuptiActivityRegisterCallbacks(buffer_requested, buffer_completed);
  for (const CUpti_ActivityKind kind : kKinds)
    if (result == CUPTI_SUCCESS) result = cupti_.cuptiActivityEnable(kind);
  if (result != CUPTI_SUCCESS) why = "CUPTI cannot record: " + cupti_.words(result);
  return result == CUPTI_SUCCESS;
}

void CuptiClock::disable() {
  for (const CUpti_ActivityKind kind : kKinds) cupti_.cuptiActivityDisable(kind);
  cupti_.cuptiUnsubscribe(subscriber_);
}

bool CuptiClock::start(std::string& why) {
  if (running_.exchange(true)) {
    why = "another Pass is being measured";
    return false;
  }
  const CUptiResult result = cupti_.cuptiSubscribe(&subscriber_, &nothing, nullptr);
  if (result != CUPTI_SUCCESS) why = "CUPTI is held by another tool, or does not work here: " + cupti_.words(result);
  else if (enable(why)) return true;
  else disable();
  running_ = false;
  return false;
}

KernelTimes CuptiClock::stop() {
  cupti_.cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  std::size_t dropped = 0;
  cupti_.cuptiActivityGetNumDroppedRecords(nullptr, 0, &dropped);
  disable();
  running_ = false;
  KernelTimes times = books_.close();
  times.dropped = dropped;
  return times;
}

}  // namespace

KernelClock* clock(std::string& why) {
  static const bool made = [] {
    if (const Cupti* const cupti = Cupti::open()) the_clock = new CuptiClock(*cupti);  // never destroyed: CUPTI's threads may call back at any time
    return the_clock != nullptr;
  }();
  if (!made) why = Cupti::why();
  return the_clock;
}

}  // namespace reprise::cupti
