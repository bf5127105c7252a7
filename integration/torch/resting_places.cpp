#include "integration/torch/resting_places.hpp"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>

#include <utility>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/operator_facts.hpp"
#include "integration/torch/origin.hpp"
#include "integration/torch/pass.hpp"
#include "integration/torch/tensor_view.hpp"

namespace reprise::engine {
namespace {

using torch::autograd::SavedVariableHooks;

// Ends its step once: at the end of the task that first asked for the tensor, else when it dies.
struct RestingStep final : SavedVariableHooks {
  RestingPlaces& places;
  std::shared_ptr<const PlannedStep> step;
  at::Tensor kept;
  Geometry geometry;
  Version version;
  Origin origin;
  bool versioned = false, asked = false;

  RestingStep(RestingPlaces& of, std::shared_ptr<const PlannedStep> served) : places(of), step(std::move(served)) {}
  ~RestingStep() override {
    if (!asked) places.end(*step);
  }

  void call_pack_hook(const at::Tensor& tensor) override {
    kept = tensor.is_leaf() ? tensor : detached(tensor);  // never the tensor itself where it has a history: its node would own itself
    versioned = !reason_not_plain(tensor);
    if (!versioned) return;
    geometry = Geometry::of(tensor);
    version = Version::of(tensor);
    origin = Origin::of(tensor);
  }

  at::Tensor call_unpack_hook() override {
    if (versioned) version.check(geometry, [this] { return origin.text(); });
    if (current_task() >= 0 && !std::exchange(asked, true))
      torch::autograd::Engine::get_default_engine().queue_callback([&of = places, served = step] { of.end(*served); });
    return kept;
  }
};

}  // namespace

void RestingPlaces::agree(std::shared_ptr<const PlannedStep> served, bool anew) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (anew || served) step_ = std::move(served);
}

std::shared_ptr<const PlannedStep> RestingPlaces::begin() noexcept {
  if (!allowed_.load(std::memory_order_relaxed) || under_way_.load(std::memory_order_relaxed) || under_way_.exchange(true)) return nullptr;
  std::shared_ptr<const PlannedStep> step;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    step = step_;
  }
  if (step) {
    misses_ = budgeted_core().statistics().planned_misses;
    budgeted_core().begin_planned(step);
  } else {
    allowed_ = under_way_ = false;
  }
  return step;
}

void RestingPlaces::end(const PlannedStep& step) noexcept {
  budgeted_core().end_planned(&step);
  if (budgeted_core().statistics().planned_misses - misses_ > step.pieces().size() / 2) allowed_ = false;
  under_way_ = false;
}

std::unique_ptr<SavedVariableHooks> hooks_at_rest(RestingPlaces& places) {
  auto step = places.begin();
  return step ? std::make_unique<RestingStep>(places, std::move(step)) : nullptr;
}

}  // namespace reprise::engine
