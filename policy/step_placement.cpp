#include "policy/step_placement.hpp"

#include <algorithm>

#include "policy/placement.hpp"

namespace reprise {
namespace {

// Takes nothing, and writes down what the Pass asks for.
class LogMemory final : public Memory {
 public:
  explicit LogMemory(AllocationLog& log) : log_(log) {}
  void* take(int64_t bytes) override {
    void* const address = reinterpret_cast<void*>(++last_);
    if (begun_) log_.allocate(address, bytes);
    return address;
  }
  void give(void* pointer, int64_t bytes) override { log_.free(pointer, bytes); }
  void begin_pass() override { begun_ = true; }

 private:
  AllocationLog& log_;
  bool begun_ = false;
  uintptr_t last_ = 0;
};

}  // namespace

int64_t AllocationLog::rounded(int64_t bytes) const {
  const auto rounding = static_cast<int64_t>(heap_.rounding_bytes);
  return (bytes + rounding - 1) / rounding * rounding;
}

void AllocationLog::allocate(const void* address, int64_t bytes) {
  free(address, 0);  // where a free was not seen, its address coming back says it
  if (bytes <= static_cast<int64_t>(heap_.small_limit_bytes)) return;
  live_[address] = pieces_.size();
  pieces_.push_back({.bytes = static_cast<size_t>(rounded(bytes))});
}

void AllocationLog::free(const void* address, int64_t bytes) {
  const auto found = live_.find(address);
  if (found != live_.end()) {
    pieces_[found->second].dies_before = static_cast<uint32_t>(pieces_.size());
    live_.erase(found);
  } else if (bytes > static_cast<int64_t>(heap_.small_limit_bytes)) {
    outside_[rounded(bytes)]++;
  }
}

std::shared_ptr<const PlannedStep> AllocationLog::placed(int64_t looks) const {
  if (pieces_.empty()) return nullptr;
  std::vector<PlannedPiece> pieces = pieces_;
  std::vector<Lifetime> lifetimes;
  const auto end = static_cast<int64_t>(pieces.size());
  auto outside = outside_;
  for (size_t n = 0; n < pieces.size(); n++) {
    PlannedPiece& piece = pieces[n];
    const auto bytes = static_cast<int64_t>(piece.bytes);
    const bool outlives = piece.dies_before == PlannedPiece::kOutlives;
    if (const auto like = outside.find(bytes); outlives && like != outside.end() && like->second > 0) {
      like->second--;
      piece.elsewhere = true;
    }
    lifetimes.push_back({piece.elsewhere ? 0 : bytes, static_cast<int64_t>(n), outlives ? end : static_cast<int64_t>(piece.dies_before)});
  }
  const auto rounding = static_cast<int64_t>(heap_.rounding_bytes);
  const int64_t peak = peak_bytes(lifetimes, rounding);
  const Placement placement = place(lifetimes, {.alignment = rounding, .enough_bytes = peak + peak / 1000, .looks = looks});
  for (size_t n = 0; n < pieces.size(); n++) pieces[n].offset = static_cast<size_t>(placement.offsets[n]);
  return std::make_shared<const PlannedStep>(std::move(pieces));
}

std::shared_ptr<const PlannedStep> placed_step(const Plan& plan, const Profile& profile, const HeapShape& heap, int64_t looks) {
  if (!heap.places) return nullptr;
  size_t again = 0;
  for (const Group& g : plan.groups) again += g.ops.size();
  if (again > kMostAgain + 8 * profile.ops().size()) return nullptr;
  AllocationLog log(heap);
  LogMemory memory(log);
  Simulated counts;
  execute(plan, profile, memory, counts);
  return log.placed(looks);
}

}  // namespace reprise
