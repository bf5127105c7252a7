// Saved tensors: what autograd gives us to keep, and what it gets back.
#include <algorithm>

#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {

namespace {
constexpr int kGroupValues = 12;
}

Pass::Saved Pass::save(const at::Tensor& tensor, bool plain, bool keep) {
  Garbage garbage;
  std::lock_guard<std::mutex> lock(mutex_);
  live_handles_++;
  saved_anything_ = true;
  Saved saved;
  // Never the tensor itself where it has a history: that is a reference cycle with its own grad_fn. A leaf has none, and its .data may be set.
  auto keep_whole = [&] {
    counters.kept++;
    saved.kept = tensor.is_leaf() ? tensor : detached(tensor);
    count_whole(saved.kept, 1);
    return saved;
  };
  if (!plain || !recording()) return keep_whole();
  int32_t v = value_of(tensor);
  if (v < 0) {
    counters.unrecorded_saved++;
    return keep_whole();
  }
  v = check_fingerprint(tensor, v, garbage);
  if (values_[size_t(v)].uninitialised) settle(v, "uninitialised memory that is read");
  heed_emptied();
  if (values_[size_t(v)].stranded_by >= 0) settle(v, "made with parameters that are sharded again when it is needed");
  values_[size_t(v)].saved = true;
  note(Mark::kSaved, v);
  if (values_[size_t(v)].producer == kNoOp) return keep_whole();
  Value& value = values_[size_t(v)];
  if (value.handles++ == 0) tag_held(value);
  saved.value = v;
  const Following* plan = options_.following.get();
  const bool planned = plan && values_[size_t(v)].producer < broken_at_ && size_t(v) < plan->keep.size() && (plan->keep[size_t(v)] || plan->drop[size_t(v)]);
  const bool refused = value.packed && value.packed->refused;
  const bool hold_it = keep || refused || (planned ? plan->keep[size_t(v)] != 0 : options_.unplanned == PassOptions::Unplanned::kKeep);
  if (hold_it) {
    counters.kept++;
    hold(v, garbage);
    return saved;
  }
  counters.dropped++;
  if (!planned && value.handles == 1) {
    group_dropped_bytes_ += value.bytes;
    group_dropped_values_++;
    // A Group of few large Values would hold nearly all of them as Sources of the next: it may grow to four times the size.
    const bool full = group_dropped_bytes_ >= options_.group_bytes && group_dropped_values_ >= kGroupValues;
    if (full || group_dropped_bytes_ >= 4 * options_.group_bytes) {
      group_++;
      group_dropped_bytes_ = 0;
      group_dropped_values_ = 0;
    }
  }
  return saved;
}

void Pass::begin_backward() {
  if (backward_seen_.exchange(true)) return;
  note(Mark::kForwardEnd, 0);
  if (!options_.verify) return;
  replay_everything(*this);
}

void Pass::fetched_kept() {
  if (backward_seen()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  begin_backward();
}

void Pass::count_whole(const at::Tensor& kept, int change) {
  if (reason_not_plain(kept)) return;
  c10::StorageImpl* const storage = kept.storage().unsafeGetStorageImpl();
  const int32_t count = whole_[storage] += change;
  if (count == 0) whole_.erase(storage);
  if (count == 0 || (count == 1 && change == 1)) tag_saved(*storage, count > 0);
}

// Of a Group, what this Pass really did before it left the Trace.
Group Pass::before_break(Group group) const {
  std::erase_if(group.ops, [&](int32_t o) { return o >= broken_at_; });
  const auto later = [&](int32_t v) { return size_t(v) >= values_.size() || values_[size_t(v)].producer >= broken_at_; };
  std::erase_if(group.retain, later);
  std::erase_if(group.sources, later);
  std::erase_if(group.unpack, later);
  return group;
}

// The Group that the Plan runs when this Value is asked for; where it expected another one to be asked for first, the Group that has this one too.
const Group* Pass::planned_group(int32_t id, std::optional<Group>& shortened) {
  const Following* plan = options_.following.get();
  // A Value made after the break bears a number that means another one in the Plan.
  if (!plan || values_[size_t(id)].producer >= broken_at_) return nullptr;
  int32_t chosen = -1;
  const auto nth = static_cast<size_t>(values_[size_t(id)].triggered++);
  if (const auto it = plan->groups.find(id); it != plan->groups.end() && nth < it->second.size()) chosen = it->second[nth];
  else if (const auto with = plan->retained_by.find(id); with != plan->retained_by.end() && !is_packed(id)) chosen = with->second;
  if (chosen < 0) return nullptr;
  const Group& group = plan->plan.groups[size_t(chosen)];
  return broken_at_ == kNever ? &group : &shortened.emplace(before_break(group));
}

c10::Storage Pass::fetch(int32_t id) {
  Garbage garbage;  // released after the mutex
  std::unique_lock<std::mutex> lock(mutex_);
  begin_backward();
  id = latest(id);
  poll_gone();
  note(Mark::kUnpack, id);
  if (auto s = available(id)) {
    counters.found_alive++;
    consume(id, *s);
    return *s;
  }
  std::optional<Group> shortened;
  const Group* const group = planned_group(id, shortened);
  note(Mark::kReplayBegin, id);
  const double began = added_clock();
  replay(*this, id, group);
  if (group) {
    for (int32_t s : group->sources) {
      values_[size_t(s)].reads_left--;
      let_go_if_unneeded(s, garbage);
    }
    for (int32_t u : group->unpack) {
      if (u == id) continue;
      values_[size_t(u)].unpacks_left--;
      let_go_if_unneeded(u, garbage);
    }
  }
  lock.unlock();
  garbage.clear();  // a Source's last owner may be a Python object: not under the mutex, but still a part of the replay
  lock.lock();
  added_seconds_ += added_clock() - began;
  note(Mark::kReplayEnd, id);
  auto s = available(id);
  TORCH_CHECK(s.has_value(), "reprise: replaying did not bring back Value ", id, "; please report this");
  consume(id, *s);
  return *s;
}

// R12: of a replayed Value. What was not replayed is autograd's and the program's to order.
void Pass::consume(int32_t id, const c10::Storage& storage) const {
  const Value& v = values_[size_t(id)];
  if (!v.ready) return;
  const auto consumer = current_stream();
  v.ready->before(consumer);
  used_on(storage, consumer);
}

void Pass::release(const Saved& saved) {
  Garbage garbage;
  std::lock_guard<std::mutex> lock(mutex_);
  live_handles_--;
  if (saved.value < 0) {
    count_whole(saved.kept, -1);
  } else {
    const int32_t id = latest(saved.value);
    if (--values_[size_t(id)].handles == 0) {
      note(Mark::kRelease, id);
      let_go_if_unneeded(id, garbage);
      tag_held(values_[size_t(id)]);  // where others need it still
    }
  }
  // The graph was freed without a backward: nothing of this Pass will be asked for again.
  if (live_handles_ == 0 && !backward_seen() && current_task() < 0) close(garbage);
}

// R8: with retain_graph the handles stay; what was replayed falls back to dropped, and so does the memory.
void Pass::end_of_task(int task, bool graph_kept) {
  Garbage garbage;
  std::lock_guard<std::mutex> lock(mutex_);
  poll_gone();
  if (graph_kept)
    for (Value& v : values_) {
      v.triggered = 0;
      if (v.held && v.held_is_private && v.memo_task == task && v.producer != kNoOp) let_go(v, garbage);
    }
}

void Pass::stop_recording() {
  Garbage garbage;
  std::lock_guard<std::mutex> lock(mutex_);
  recording_ = false;
  if (live_handles_ > 0) return;
  if (options_.fingerprint) check_outside_copies();
  close(garbage);
}

void Pass::close(Garbage& garbage) {
  recording_ = false;
  for (Value& v : values_) {
    v.reads_left = v.unpacks_left = 0;
    let_go(v, garbage);
    if (v.packed) v.packed->content = c10::Storage();
  }
  note(Mark::kPassEnd, 0);
  if (overflow_start_bytes_ >= 0 && !finished) {
    counters.overflow_bytes += overflow_bytes();
    overflow::forbid();
  }
  finished = true;
}

void Pass::may_overflow(std::optional<size_t> limit_bytes) {
  if (overflow_start_bytes_ >= 0) return;
  overflow_start_bytes_ = static_cast<int64_t>(overflow::live_bytes());
  only_measured_ = !limit_bytes;
  overflow::allow(limit_bytes ? overflow::live_bytes() + *limit_bytes : SIZE_MAX);
}

size_t Pass::revoke(size_t bytes) {
  // Called from the allocator with none of its locks held; this thread may be inside one of our own replays, and then it owns the mutex already.
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  const bool inside_replay = replaying_.load() == std::this_thread::get_id();
  if (!inside_replay && !lock.try_lock()) return 0;
  std::vector<std::pair<double, int32_t>> order;
  for (size_t i = 0; i < values_.size(); i++) {
    const Value& v = values_[i];
    if (!v.held || v.in_use || v.producer == kNoOp || v.bytes < 4096 || v.held.use_count() != 1) continue;
    // What was replayed goes last: it was asked for a moment ago.
    const double rank = ops_[size_t(v.producer)].forward_seconds / double(v.bytes) + (v.held_is_private ? 1.0 : 0.0);
    order.emplace_back(rank, static_cast<int32_t>(i));
  }
  std::sort(order.begin(), order.end());
  size_t freed = 0;
  for (const auto& [cost, i] : order) {
    if (freed >= bytes) break;
    Value& v = values_[size_t(i)];
    v.held_is_private = false;
    v.held = c10::Storage();  // nobody else holds it, and no Python object: it is freed here
    freed += size_t(v.bytes);
    counters.revoked++;
    counters.revoked_bytes += v.bytes;
    revoked_bytes_ += v.bytes;
  }
  if (inside_replay && freed < bytes) freed += give_up_retained(*running_, bytes - freed);
  return freed;
}

}  // namespace reprise::engine
