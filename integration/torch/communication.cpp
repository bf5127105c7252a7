#include "integration/torch/communication.hpp"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "integration/torch/tensor_view.hpp"

namespace reprise::engine {
namespace {

// Storages of one kind, as long as they live.
class Tally {
 public:
  void add(const at::Tensor& tensor) { storages_.insert_or_assign(tensor.storage().unsafeGetStorageImpl(), tensor.storage().getWeakStorageImpl()); }
  bool has(const at::Tensor& tensor) const { return storages_.count(tensor.storage().unsafeGetStorageImpl()) != 0; }
  void measure() {
    int64_t bytes = 0;
    for (auto it = storages_.begin(); it != storages_.end();) {
      const auto alive = it->second.lock();
      if (alive) bytes += static_cast<int64_t>(alive->nbytes());
      it = alive ? std::next(it) : storages_.erase(it);
    }
    peak_bytes_ = std::max(peak_bytes_, bytes);
  }
  int64_t peak_bytes() const { return peak_bytes_; }
  void reset() { peak_bytes_ = 0; }

 private:
  std::unordered_map<c10::StorageImpl*, c10::weak_intrusive_ptr<c10::StorageImpl>> storages_;  // weak: pins the address
  int64_t peak_bytes_ = 0;
};

struct Tallies {
  std::mutex mutex;
  Tally gathered, buffers;
};

Tallies& tallies() {
  static auto* const kept = new Tallies;  // never destroyed: threads may outlive main
  return *kept;
}

}  // namespace

void note_communication(const OperatorFacts& facts, const torch::jit::Stack& stack) {
  const bool collective = facts.name.starts_with("c10d::"), fills = facts.name == "fsdp::split_with_sizes_copy";
  if (!collective && !facts.name.starts_with("fsdp::")) return;
  Tallies& t = tallies();
  std::lock_guard<std::mutex> lock(t.mutex);
  const size_t count = facts.writes.size(), base = stack.size() - count;
  for (size_t i = 0; i < count; i++) {
    if (!collective && !facts.writes[i]) continue;
    for_each_tensor(stack[base + i], [&](const at::Tensor& tensor) {
      if (!tensor.defined() || reason_not_plain(tensor)) return;
      if (fills) t.gathered.add(tensor);
      else if (!t.gathered.has(tensor)) t.buffers.add(tensor);
    });
  }
  t.gathered.measure();
  t.buffers.measure();
}

CommunicationPeaks communication_peaks() {
  Tallies& t = tallies();
  std::lock_guard<std::mutex> lock(t.mutex);
  return {t.gathered.peak_bytes(), t.buffers.peak_bytes()};
}

void reset_communication_peaks() {
  Tallies& t = tallies();
  std::lock_guard<std::mutex> lock(t.mutex);
  t.gathered.reset();
  t.buffers.reset();
}

}  // namespace reprise::engine
