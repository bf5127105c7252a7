#include "integration/torch/rest.hpp"

#include <cstdint>

#include "allocator/caching_allocator.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/overflow.hpp"

namespace reprise::engine {

void Rest::set_observer(AllocationObserver* observer) {
  observer_ = observer;
  budgeted_core().set_observer(observer);
}

void Rest::after_pass(bool all_fits) {
  if (!all_fits) {
    fitting_ = 0;
    return;
  }
  if (++fitting_ < kPassesBefore || rests_ >= kMostRests || resting_.exchange(true)) return;
  rests_++;
  budgeted_core().set_observer(nullptr);
}

bool Rest::wake() {
  if (!resting_.exchange(false)) return false;
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
  if (resting_.exchange(false)) budgeted_core().set_observer(observer_);
  if (woken_.exchange(false)) overflow::forbid();
  fitting_ = 0;
  rests_ = 0;
}

}  // namespace reprise::engine
