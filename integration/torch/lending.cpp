// Steps of many sizes: a kind of Pass that was not seen before follows the Plan of a larger one, until it has come often enough to be learned itself; and of
// all kinds only those used last are remembered.
//
// A Plan speaks of Ops and Values by number. A step of the same structure (operators, what each reads and makes) numbers them alike, whatever its shapes; where it is smaller
// it needs fewer bytes. What it really needs is not known: until it is learned it may use the temporary file as a learning Pass may. That no replay gives other
// numbers does not depend on the Plan at all.
#include <algorithm>

#include "integration/torch/controller.hpp"
#include "integration/torch/planning.hpp"

namespace reprise::engine {
namespace {

constexpr size_t kMostKinds = 64;
constexpr int kMostLoans = 3;  // a size that comes a fourth time is worth a learning Pass and a search

// No tensor of the first call is larger, in any dimension.
bool is_no_larger(const FirstCall& step, const FirstCall& lender) {
  if (step.operator_hash != lender.operator_hash || step.shapes.size() != lender.shapes.size()) return false;
  for (size_t t = 0; t < step.shapes.size(); t++)
    if (!std::equal(step.shapes[t].begin(), step.shapes[t].end(), lender.shapes[t].begin(), lender.shapes[t].end(), std::less_equal<>())) return false;
  return true;
}

int64_t elements(const FirstCall& call) {
  int64_t sum = 0;
  for (const auto& shape : call.shapes) {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    sum += count;
  }
  return sum;
}

}  // namespace

// R11: what was caught in one kind's learning Pass may happen in another's, which is not looked at: then each is learned before it follows any Plan.
std::shared_ptr<const Following> Controller::borrow(const FirstCall& first, const Known& known, int64_t start_live_bytes) {
  const bool never_seen = known.learning && !known.profile && known.breaks == 0;
  if (!never_seen || known.borrowed >= kMostLoans || known.lends_nothing || caught.size() > 0) return nullptr;
  if (config_.policy != "auto" || config_.budget_bytes == 0 || config_.verify) return nullptr;
  const Known* nearest = nullptr;
  for (const auto& [key, other] : known_) {
    const bool has_plan = other.following && other.settled && !other.learning && other.planned_limit != INT64_MAX && other.structure;
    if (!has_plan || !is_no_larger(first, other.first)) continue;
    if (other.following->plan.predicted_reserved_bytes > limit_for(other, config_, start_live_bytes)) continue;
    if (!nearest || elements(other.first) < elements(nearest->first)) nearest = &other;
  }
  return nearest ? nearest->following : nullptr;
}

void Controller::returned(const Pass& pass, Known& known) { known.lends_nothing = !pass.plan_held() || pass.overflow_bytes() > 0; }

void Controller::forget_the_longest_unused(uint64_t used_now) {
  while (known_.size() > kMostKinds) {
    const auto oldest = std::min_element(known_.begin(), known_.end(), [&](const auto& a, const auto& b) {
      return std::pair(a.first == used_now, a.second.last_used) < std::pair(b.first == used_now, b.second.last_used);
    });
    known_.erase(oldest);
  }
}

int64_t Controller::kinds() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(known_.size());
}

}  // namespace reprise::engine
