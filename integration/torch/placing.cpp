#include "integration/torch/placing.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "integration/torch/budgeted.hpp"

namespace reprise::engine {
namespace {

constexpr int kMostTries = 4;
constexpr int64_t kLooks = 5'000'000;

std::atomic<int> being_served{0};  // Passes between begin() and leave()

}  // namespace

bool placement_allowed() {
  static const bool wanted = [] {
    const char* const text = std::getenv("REPRISE_PLACEMENT");
    return text == nullptr || std::strcmp(text, "0") != 0;
  }();
  return wanted;
}

void Placing::begin(const Placed& placed) {
  if (!placement_allowed()) return;
  core_ = &budgeted_core();
  step_ = placed.step;
  if (!placed.settled) log_.emplace(heap_shape());
  left_ = false;
  const bool alone = being_served.fetch_add(1) == 0;
  if (!alone) core_->end_planned();
  const Statistics now = core_->statistics();
  hits_ = now.planned_hits;
  misses_ = now.planned_misses;
  begun_ = step_ && alone && core_->begin_planned(step_);
  interrupted_ = !alone;
}

void Placing::leave() noexcept {
  if (left_) return;
  left_ = true;
  if (begun_ && !core_->end_planned(step_.get())) interrupted_ = true;
  being_served--;
  const Statistics now = core_->statistics();
  hits_ = now.planned_hits - hits_;
  misses_ = now.planned_misses - misses_;
}

void Placing::learn(Placed& placed) {
  if (core_ == nullptr) return;
  try {
    settle(placed);
  } catch (const std::exception& e) {  // never the training's problem: best fit serves what is not placed
    std::fprintf(stderr, "reprise: this step is not placed (%s)\n", e.what());
    placed = {.plan = placed.plan, .step = nullptr, .tries = kMostTries, .settled = true};
  }
}

void Placing::settle(Placed& placed) const {
  if (whole()) {
    if (!placed.settled) core_->trim();  // what was committed on the way there
    placed.settled = true;
    placed.tries = 0;
    return;
  }
  if (!log_) {
    placed.settled = placed.tries >= kMostTries;  // it asked for something else than usual: the next one is logged
    return;
  }
  if (placed.tries < kMostTries) {
    placed.tries++;
    {
      const std::lock_guard<std::mutex> lock(log_mutex_);
      placed.step = log_->placed(kLooks);
    }
    core_->trim();  // what was committed for other places is not wanted any more
    return;
  }
  placed.settled = true;
  if (!begun_ || interrupted_ || hits_ < step_->pieces().size() / 2) placed.step = nullptr;  // a region that hardly anybody uses is memory lost
}

}  // namespace reprise::engine
