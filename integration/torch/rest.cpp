#include "integration/torch/rest.hpp"

#include <cstdint>
#include <utility>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/overflow.hpp"

namespace reprise::engine {

void Rest::set_observer(AllocationObserver* observer) {
  observer_ = observer;
  budgeted_core().set_observer(observer);
}

void Rest::after_pass(bool all_fits, std::shared_ptr<const PlannedStep> served) {
  if (!all_fits) {
    fitting_ = 0;
    return;
  }
  places_.agree(std::move(served), fitting_ == 0);
  if (++fitting_ < kPassesBefore || rests_ >= kMostRests || resting_.exchange(true)) return;
  rests_++;
  budgeted_core().set_observer(nullptr);
  places_.allow(true);
}

bool Rest::wake() {
  if (!resting_.exchange(false)) return false;
  places_.allow(false);
  fitting_ = 0;
  budgeted_core().set_observer(observer_);
  if (!woken_.exchange(true)) overflow::allow(SIZE_MAX);
  return true;
}

bool Rest::woken_midway() {
  if (!woken_.exchange(false)) return false;
  overflow::forbid();
  return true;
}

void Rest::reset() {
  places_.allow(false);
  if (resting_.exchange(false)) budgeted_core().set_observer(observer_);
  if (woken_.exchange(false)) overflow::forbid();
  fitting_ = 0;
  rests_ = 0;
}

}  // namespace reprise::engine
