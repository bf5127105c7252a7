#include "integration/torch/placing.hpp"

#include <cstdio>
#include <exception>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {
namespace {

constexpr int kMostTries = 4;
constexpr int64_t kLooks = 20'000'000;

}  // namespace

void Placing::begin(const Placed& placed) {
  core_ = &budgeted_core();
  step_ = placed.step;
  if (!placed.settled) log_.emplace(heap_shape());
  left_ = false;
  const Statistics now = core_->statistics();
  hits_ = now.planned_hits;
  misses_ = now.planned_misses;
  begun_ = step_ && core_->begin_planned(step_);
}

void Placing::leave() noexcept {
  if (left_) return;
  left_ = true;
  if (begun_) core_->end_planned(step_.get());
  const Statistics now = core_->statistics();
  hits_ = now.planned_hits - hits_;
  misses_ = now.planned_misses - misses_;
}

void Placing::learn(Placed& placed) {
  if (placed.settled || !log_) return;
  try {
    settle(placed);
  } catch (const std::exception& e) {  // never the training's problem: best fit serves what is not placed
    std::fprintf(stderr, "reprise: this step is not placed (%s)\n", e.what());
    placed = {.plan = placed.plan, .step = nullptr, .settled = true};
  }
}

void Placing::settle(Placed& placed) const {
  if (begun_ && misses_ == 0 && hits_ == step_->pieces().size()) {
    placed.settled = true;
    return;
  }
  if (placed.tries++ < kMostTries) {
    placed.step = log_->placed(kLooks);
    return;
  }
  placed.settled = true;
  if (!begun_ || hits_ < step_->pieces().size() / 2) placed.step = nullptr;  // a region that hardly anybody uses is memory lost
}

}  // namespace reprise::engine
