#include "integration/torch/recording.hpp"

#include <algorithm>
#include <mutex>

namespace reprise::engine {

void Op::begin(const c10::OperatorHandle& op, c10::DispatchKeySet left, const OperatorFacts& known) {
  handle = op;
  keys = left;
  facts = &known;
  opaque_reason = known.opaque_reason;
  made.clear();
  wrote.clear();
  draws_from_default = hidden_write = repeatable = false;
  stream.reset();
  forward_seconds = replay_seconds = 0;
  match = signature = structure = 0;
  reads.clear();
  gradients.clear();
  input_shapes.clear();
  output_shapes.clear();
  integers.clear();
}

void Op::forget() {
  for (Slot& slot : arguments) slot.clear();
  if (generator.defined()) spare_generator = std::move(generator);
  generator = at::Generator();
  settings.reset();
}

std::unique_ptr<Op> OpLog::make(const c10::OperatorHandle& op, c10::DispatchKeySet left, const OperatorFacts& known) {
  std::unique_ptr<Op> made;
  if (const Op* const here = expected(); here && !here->repeatable) {
    made = take_expected();
  } else if (!spare_.empty()) {
    made = std::move(spare_.back());
    spare_.pop_back();
  } else {
    return std::make_unique<Op>(op, left, known);
  }
  made->begin(op, left, known);
  return made;
}

void OpLog::clear() {
  for (auto& unused : last_)
    if (unused) {
      unused->forget();
      spare_.push_back(std::move(unused));
    }
  last_.clear();
  last_.swap(ops_);
  for (const auto& op : last_)
    if (!op->repeatable) op->forget();
}

void StorageMap::set(const c10::StorageImpl* storage, int32_t value) {
  for (size_t at = place_of(storage);; at = (at + 1) & mask()) {
    Cell& cell = cells_[at];
    if (cell.storage && cell.storage != storage) continue;
    used_ += cell.storage ? 0 : 1;
    cell = {storage, value};
    break;
  }
  if (2 * used_ <= cells_.size()) return;
  std::vector<Cell> before(2 * cells_.size());
  before.swap(cells_);
  used_ = 0;
  for (const Cell& cell : before)
    if (cell.storage) set(cell.storage, cell.value);
}

void StorageMap::clear() {
  std::fill(cells_.begin(), cells_.end(), Cell{});
  used_ = 0;
}

namespace {

// Two: a Pass begins before its predecessor is through.
constexpr size_t kSpare = 2;

struct Pool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Recording>> spare;
};

Pool& pool() {
  static Pool* const instance = new Pool;  // Passes may outlive static objects
  return *instance;
}

}  // namespace

std::unique_ptr<Recording> Recording::take() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  if (pool().spare.empty()) return std::make_unique<Recording>();
  std::unique_ptr<Recording> out = std::move(pool().spare.back());
  pool().spare.pop_back();
  return out;
}

void Recording::give_back(std::unique_ptr<Recording> through) {
  through->ops.clear();
  through->values.clear();
  through->current.clear();
  through->watched.clear();
  std::lock_guard<std::mutex> lock(pool().mutex);
  if (pool().spare.size() < kSpare) pool().spare.push_back(std::move(through));
}

void Recording::drop_spare() {
  std::vector<std::unique_ptr<Recording>> dropped;
  std::lock_guard<std::mutex> lock(pool().mutex);
  dropped.swap(pool().spare);
}

}  // namespace reprise::engine
