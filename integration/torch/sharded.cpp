// Sources that come and go: FSDP gathers a unit's parameters into storages that it empties when the unit is through (storage.resize_(0)) and fills again
// when the unit's backward begins. Their version counters say all the while that nothing changed.
//
// What follows from it: an Op that reads such a parameter can run again only while its unit is open. In backward a unit opens for its own nodes, so a Value
// made inside the unit may be dropped as long as only the unit's own Ops read it; one that crosses the unit's end is kept (stranded, then settled), and no
// replay ever reaches back over it. No collective is repeated, none is added.
//
// How it is seen: the allocator tells of every free (Pass::note_freed); a Source is held by the Pass, so its memory can only go by a resize.
// Cost: one look-up a free, in a few cache lines and without a lock where the address was never a Source's; a walk over the Ops recorded since the unit's first, for each unit that ends.
#include "integration/torch/pass.hpp"

namespace reprise::engine {

void Pass::note_freed(const void* address) {
  if (!watched_addresses_.may_hold(address)) return;
  std::lock_guard<std::mutex> lock(sources_mutex_);
  if (auto it = sources_at_.find(address); it != sources_at_.end()) {
    freed_sources_.push_back(it->second);
    sources_freed_.store(true, std::memory_order_relaxed);  // the mutex orders the rest
  }
}

void Pass::watch_source(int32_t id) {
  Value& v = values_[size_t(id)];
  if (!v.held || v.held_is_private || v.held.nbytes() == 0 || v.watched_at == v.held.data()) return;
  v.watched_at = v.held.data();
  watched_addresses_.add(v.watched_at);
  std::lock_guard<std::mutex> lock(sources_mutex_);
  sources_at_[v.held.data()] = id;
}

void Pass::heed_emptied() {
  if (!sources_freed_.load(std::memory_order_relaxed)) return;
  std::vector<int32_t> freed, emptied;
  {
    std::lock_guard<std::mutex> lock(sources_mutex_);
    freed.swap(freed_sources_);
    sources_freed_.store(false, std::memory_order_relaxed);
  }
  for (int32_t id : freed) {
    Value& v = values_[size_t(id)];
    if (!v.held || v.held_is_private) continue;  // the Pass let go of it before: its storage died
    v.emptied = true;
    v.outside = true;  // what it holds while it is filled is the program's, not an activation
    emptied.push_back(id);
  }
  if (emptied.empty() || backward_seen()) return;
  strand_dependents(emptied);
  group_++;  // of the learning Pass: a Group is made again as a whole, so none reaches over a unit's end
  group_dropped_bytes_ = 0;
  group_dropped_values_ = 0;
}

// Forwards over the Ops: what was made with an emptied Value and could only be made again with it.
void Pass::strand_dependents(const std::vector<int32_t>& emptied) {
  std::vector<int32_t> by(values_.size(), -1);
  for (int32_t id : emptied) by[size_t(id)] = id;
  for (size_t o = 0; o < ops_.size(); o++) {
    if (ops_[o].opaque_reason) continue;
    int32_t source = -1;
    for (const Slot& slot : ops_[o].arguments)
      for (const Ref& r : slot.refs)
        if (r.value >= 0 && by[size_t(r.value)] >= 0) source = by[size_t(r.value)];
    if (source < 0) continue;
    const auto strand = [&](int32_t v) {
      if (v < 0 || values_[size_t(v)].producer != static_cast<int32_t>(o)) return;
      by[size_t(v)] = values_[size_t(v)].stranded_by = source;
    };
    for (int32_t v : ops_[o].made) strand(v);
    for (const auto& w : ops_[o].wrote) strand(w.second);
  }
}

bool Pass::brought_back(int32_t id) {
  Value& v = values_[size_t(id)];
  if (!v.emptied || !v.held) return false;
  if (static_cast<int64_t>(v.held.nbytes()) >= v.bytes) {
    v.emptied = false;
    watch_source(id);
  }
  return true;
}

bool Pass::is_open(const Value& value) const { return value.stranded_by < 0 || !values_[size_t(value.stranded_by)].emptied; }

}  // namespace reprise::engine
