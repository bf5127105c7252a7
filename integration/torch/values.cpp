// Values: who holds which content, what a write does to it (R7), and what was written where nobody could see it (R11).
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <cstring>

#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {

Counters counters;
Caught caught;

void Caught::add(uint64_t place) {
  std::lock_guard<std::mutex> lock(mutex_);
  places_.insert(place);
  count_ = places_.size();
}

void Caught::clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  places_.clear();
  count_ = 0;
}

bool Caught::has(uint64_t place) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return places_.count(place) != 0;
}

std::vector<uint64_t> Caught::places() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint64_t> out(places_.begin(), places_.end());
  std::sort(out.begin(), out.end());
  return out;
}

// Waits for the device: for REPRISE_VERIFY only.
static c10::Storage copied_to_host(const c10::Storage& storage) {
  c10::impl::ExcludeDispatchKeyGuard no_recording(c10::DispatchKey::Fake);
  at::AutoDispatchBelowADInplaceOrView below;
  return bytes_of(storage).to(at::kCPU).storage();
}

uint64_t fingerprint_of(const c10::Storage& storage) {
  // Four independent multiply-fold lanes over 32 bytes a turn: about memory speed. Not cryptographic: it guards against accidents.
  if (!storage.device().is_cpu()) return fingerprint_of(copied_to_host(storage));
  const auto* p = static_cast<const unsigned char*>(storage.data());
  const size_t bytes = p ? storage.nbytes() : 0;
  uint64_t lane[4] = {0x9e3779b97f4a7c15ull, 0xbf58476d1ce4e5b9ull, 0x94d049bb133111ebull, 0x2545f4914f6cdd1dull};
  auto turn = [&](const uint64_t* word) {
    for (int i = 0; i < 4; i++) lane[i] = (lane[i] ^ word[i]) * 0xff51afd7ed558ccdull, lane[i] ^= lane[i] >> 29;
  };
  uint64_t word[4];
  size_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    std::memcpy(word, p + at, 32);
    turn(word);
  }
  std::memset(word, 0, sizeof word);
  if (at < bytes) std::memcpy(word, p + at, bytes - at);
  turn(word);
  uint64_t hash = bytes;
  for (uint64_t l : lane) hash = (hash ^ l) * 0xc4ceb9fe1a85ec53ull, hash ^= hash >> 31;
  return hash;
}

Pass::Pass(PassOptions options)
    : options_(std::move(options)),
      recording_memory_(Recording::take()),
      ops_(recording_memory_->ops),
      values_(recording_memory_->values),
      current_(recording_memory_->current),
      watched_addresses_(recording_memory_->watched) {
  if (options_.trace) events_.reserve(1 << 14);
  started_seconds = now_seconds();
}

Pass::~Pass() {
  if (overflow_start_bytes_ >= 0 && !finished) overflow::forbid();
  Recording::give_back(std::move(recording_memory_));
}

int32_t Pass::value_of(const at::Tensor& tensor) const { return current_.find(tensor.storage().unsafeGetStorageImpl()); }

int32_t Pass::new_value(const at::Tensor& tensor, int32_t producer) {
  const c10::Storage& storage = tensor.storage();
  const auto id = static_cast<int32_t>(values_.size());
  Value& v = values_.emplace_back();
  v.producer = producer;
  v.bytes = static_cast<int64_t>(storage.nbytes());
  v.item_bytes = static_cast<int32_t>(tensor.itemsize());
  v.storage = storage.getWeakStorageImpl();
  v.group = group_;
  current_.set(storage.unsafeGetStorageImpl(), id);
  note(Mark::kBorn, id, reinterpret_cast<int64_t>(storage.data()));
  if (producer != kNoOp) tag_made(id, storage);
  if (options_.trace) watched_.push_back(id);
  return id;
}

// Between these marks an allocation is ours and not the program's.
c10::Storage Pass::private_copy(int32_t id, const c10::Storage& storage) {
  note(Mark::kReplayBegin, id);
  c10::Storage copy = clone_storage(storage);
  note(Mark::kReplayEnd, id);
  return copy;
}

int32_t Pass::value_or_outside(const at::Tensor& tensor, uint64_t place, bool read) {
  if (const int32_t known = value_of(tensor); known >= 0) return known;
  const int32_t id = new_value(tensor, kNoOp);
  Value& v = values_[size_t(id)];
  v.outside = true;
  v.version = Version::of(tensor);
  v.place = place;
  // An input small enough is copied while we learn, and always once a write to it was caught: numpy may refill it before backward (R11).
  const bool may_copy = read && options_.fingerprint && !tensor.requires_grad() && copied_input_bytes_ + v.bytes <= options_.copy_input_bytes;
  const bool copy = (caught.size() && caught.has(place)) || may_copy;
  if (copy && v.bytes > 0) {
    copied_input_bytes_ += v.bytes;
    v.held = private_copy(id, tensor.storage());
    v.held_is_private = true;
    v.fingerprint = fingerprint_of(v.held);
    v.has_fingerprint = true;
  }
  return id;
}

void Pass::hold(int32_t id, Garbage& garbage) {
  Value& v = values_[size_t(id)];
  if (v.held) return;
  auto impl = v.storage.lock();
  if (!impl) return;
  if (current_.find(impl.get()) != id) {
    garbage.emplace_back(std::move(impl));
    return;
  }
  v.held = c10::Storage(std::move(impl));
  v.held_is_private = false;
  if (v.handles > 0) tag_held(v);
}

void Pass::tag_made(int32_t id, const c10::Storage& storage) const {
  const bool known = options_.regions && size_t(id) < options_.regions->size();
  tag_storage(*storage.unsafeGetStorageImpl(), Category::kActivation, known ? (*options_.regions)[size_t(id)] : -1);
}

void Pass::tag_held(const Value& v) const {
  c10::StorageImpl* const storage = v.held ? v.held.unsafeGetStorageImpl() : nullptr;
  if (storage) tag_saved(*storage, v.handles > 0 || whole_.count(storage) > 0);
}

void Pass::let_go(Value& v, Garbage& garbage) {
  if (v.held) {
    tag_saved(*v.held.unsafeGetStorageImpl(), whole_.count(v.held.unsafeGetStorageImpl()) > 0);
    garbage.push_back(std::move(v.held));
  }
  v.held = c10::Storage();
  v.held_is_private = false;
  v.memo_task = -1;
  v.ready.reset();
}

void Pass::let_go_if_unneeded(int32_t id, Garbage& garbage) {
  Value& v = values_[size_t(id)];
  if (v.handles > 0 || v.reads_left > 0 || v.in_use || v.producer == kNoOp) return;
  if (v.unpacks_left == 0 || is_packed(id)) let_go(v, garbage);
  if (v.unpacks_left == 0 && is_packed(id)) garbage.push_back(std::move(v.packed->content)), v.packed->content = c10::Storage();
}

std::optional<c10::Storage> Pass::available(int32_t id) const {
  const Value& v = values_[size_t(id)];
  if (v.held) return v.held;
  if (auto impl = v.storage.lock()) {
    if (current_.find(impl.get()) == id) return c10::Storage(std::move(impl));
  }
  return std::nullopt;
}

void Pass::settle(int32_t id, const char* reason) {
  Value& v = values_[size_t(id)];
  v.producer = kNoOp;
  v.keep_reason = reason;
  v.uninitialised = false;
  v.stranded_by = -1;
  if (auto s = available(id); s && !v.held) v.held = *s;
}

// Forwards over the ops: a Value depends on `id` if its producer reads one that does.
bool Pass::needed_by_dropped(int32_t id) const {
  std::vector<uint8_t> tainted(values_.size(), 0);
  tainted[size_t(id)] = 1;
  for (size_t o = 0; o < ops_.size(); o++) {
    const Op& op = ops_[o];
    if (op.opaque_reason) continue;
    bool reads = false;
    for (const Slot& slot : op.arguments)
      for (const Ref& r : slot.refs) reads |= r.value >= 0 && tainted[size_t(r.value)];
    if (!reads) continue;
    auto taint = [&](int32_t v) {
      if (v < 0 || values_[size_t(v)].producer != static_cast<int32_t>(o)) return false;
      tainted[size_t(v)] = 1;
      return values_[size_t(v)].handles > 0 || values_[size_t(v)].reads_left > 0;
    };
    for (int32_t v : op.made)
      if (taint(v)) return true;
    for (const auto& w : op.wrote)
      if (taint(w.second)) return true;
  }
  // While the forward is still running, later ops may be saved and depend on it too.
  return recording() && values_[size_t(id)].readers > 0;
}

void Pass::before_write(int32_t id, Garbage& garbage) {
  Value& v = values_[size_t(id)];
  if (v.producer != kNoOp) {  // can be made again: only let go of the program's storage, which is about to change
    if (v.held && !v.held_is_private) let_go(v, garbage);
    return;
  }
  if (v.held_is_private) return;
  if (v.readers > 0 && needed_by_dropped(id)) {
    if (auto s = available(id)) {
      if (v.outside && !v.version.current()) {
        v.lost = true;
        let_go(v, garbage);
        return;
      }
      c10::Storage copy = private_copy(id, *s);
      let_go(v, garbage);
      v.held = std::move(copy);
      v.held_is_private = true;
      counters.source_copies++;
      counters.source_copy_bytes += v.bytes;
      return;
    }
  }
  let_go(v, garbage);
}

int32_t Pass::after_write(const at::Tensor& tensor, int32_t before, int32_t producer, Garbage& garbage) {
  const int32_t id = new_value(tensor, producer);
  Value& was = values_[size_t(before)];
  Value& now = values_[size_t(id)];
  was.next = id;
  // A saved tensor shows what its storage holds when backward asks, as in plain torch (whose version check comes first).
  now.handles = was.handles;
  was.handles = 0;
  now.saved = now.handles > 0;
  now.outside = was.outside && producer == kNoOp;
  if (producer == kNoOp) now.version = Version::of(tensor);
  if (now.handles > 0 && producer == kNoOp) hold(id, garbage);
  return id;
}

int32_t Pass::check_fingerprint(const at::Tensor& tensor, int32_t id, Garbage& garbage) {
  if (!options_.fingerprint) return id;
  Value& v = values_[size_t(id)];
  if (v.uninitialised || v.slack) return id;  // nothing to compare with
  const uint64_t print = fingerprint_of(tensor.storage());
  if (!v.has_fingerprint || v.fingerprint == print) {
    v.fingerprint = print;
    v.has_fingerprint = true;
    return id;
  }
  counters.unseen_writes++;
  caught_ = true;
  if (v.producer != kNoOp) {
    caught.add(ops_[size_t(v.producer)].match);
    if (!v.held_is_private) let_go(v, garbage);
  } else {
    caught.add(v.place);
    if (!v.held_is_private && v.readers > 0) {
      v.lost = true;
      let_go(v, garbage);
    }
  }
  const int32_t now = after_write(tensor, id, kNoOp, garbage);
  values_[size_t(now)].keep_reason = "written where no operator could see it";
  values_[size_t(now)].fingerprint = print;
  values_[size_t(now)].has_fingerprint = true;
  return now;
}

void Pass::check_outside_copies() {
  for (const Value& v : values_) {
    if (!v.outside || !v.held_is_private || !v.has_fingerprint || v.next >= 0 || !v.place) continue;
    if (auto impl = v.storage.lock())
      if (impl->nbytes() == size_t(v.bytes) && fingerprint_of(c10::Storage(std::move(impl))) != v.fingerprint && v.version.current()) {
        counters.unseen_writes++;
        caught_ = true;
        caught.add(v.place);
      }
  }
}

// After Op number `index`: does the Pass still repeat the Trace that the Plan was made for? What the Plan says of the Values it made.
void Pass::follow(size_t index) {
  const Following* plan = options_.following.get();
  if (!plan || broken_at_ != kNever) return;
  const Op& op = ops_[index];
  const std::vector<uint64_t>& wanted = options_.lent ? *plan->structure : *plan->match;
  if (index >= wanted.size() || wanted[index] != (options_.lent ? op.structure : op.match)) {
    broken_at_ = static_cast<int32_t>(index);
    counters.broken_plans++;
    placing.leave();
    return;
  }
  Garbage garbage;
  auto apply = [&](int32_t id) {
    if (id < 0 || size_t(id) >= plan->keep.size()) return;
    values_[size_t(id)].reads_left = plan->reads[size_t(id)];
    values_[size_t(id)].unpacks_left = plan->unpacks[size_t(id)];
    if (plan->pack[size_t(id)] != Packing::kNone) pack_value(id, plan->pack[size_t(id)], garbage);
    if (plan->keep[size_t(id)] && !values_[size_t(id)].uninitialised) hold(id, garbage);
  };
  for (int32_t v : op.made) apply(v);
  for (const auto& w : op.wrote) apply(w.second);
}

// A held Value is gone when the forward and the user have let go of it: ours is then the only reference left.
void Pass::poll_gone() {
  if (!options_.trace) return;
  for (size_t i = 0; i < watched_.size();) {
    Value& v = values_[size_t(watched_[i])];
    const bool over = v.next >= 0 || v.outside || v.storage.expired();
    if (!over && !(v.held && !v.held_is_private && v.held.use_count() == 1)) {
      i++;
      continue;
    }
    if (!v.outside && v.next < 0) note(Mark::kGone, watched_[i]);
    watched_[i] = watched_.back();
    watched_.pop_back();
  }
}

const std::shared_ptr<const Settings>& Pass::settings_now(const OperatorFacts& facts) {
  if (!settings_ || !settings_->in_force(facts.precision)) settings_ = std::make_shared<const Settings>(Settings::now());
  return settings_;
}

std::shared_ptr<const Following> Following::of(Plan plan, Hashes match, Hashes structure) {
  auto f = std::make_shared<Following>();
  f->keep.assign(size_t(plan.value_count), 0);
  f->drop.assign(size_t(plan.value_count), 0);
  f->pack.assign(size_t(plan.value_count), Packing::kNone);
  f->reads.assign(size_t(plan.value_count), 0);
  f->unpacks.assign(size_t(plan.value_count), 0);
  for (const PackedValue& p : plan.pack) f->pack[size_t(p.value)] = p.form, f->drop[size_t(p.value)] = 1;
  for (int32_t v : plan.keep) f->keep[size_t(v)] = 1;
  for (size_t g = 0; g < plan.groups.size(); g++) {
    f->groups[plan.groups[g].trigger].push_back(static_cast<int32_t>(g));
    f->drop[size_t(plan.groups[g].trigger)] = 1;
    for (int32_t v : plan.groups[g].retain) {
      f->drop[size_t(v)] = 1;
      f->retained_by.emplace(v, static_cast<int32_t>(g));
    }
    for (int32_t s : plan.groups[g].sources) f->reads[size_t(s)]++;
    for (int32_t u : plan.groups[g].unpack)
      if (u != plan.groups[g].trigger) f->unpacks[size_t(u)]++;
  }
  f->plan = std::move(plan);
  f->match = std::move(match);
  f->structure = std::move(structure);
  return f;
}

std::string Pass::check_invariants() const {
  std::lock_guard<std::mutex> lock(mutex_);
  int64_t handles = 0;
  for (size_t i = 0; i < values_.size(); i++) {
    const Value& v = values_[i];
    handles += v.handles;
    if (v.handles < 0) return "E4: Value " + std::to_string(i) + " has " + std::to_string(v.handles) + " handles";
    if (is_packed(int32_t(i)) && (finished || v.packed->form.bytes != v.bytes))
      return "E7: Value " + std::to_string(i) + " has a packed form that is not its own";
    if (v.held && !v.held_is_private && v.next >= 0)
      return "E1: Value " + std::to_string(i) + " holds a storage that Value " + std::to_string(v.next) + " overwrote";
  }
  if (handles > live_handles_) return "E4: " + std::to_string(handles) + " handles counted, " + std::to_string(live_handles_) + " alive";
  for (size_t o = 0; o < ops_.size(); o++) {
    if (ops_[o].opaque_reason) continue;
    if (ops_[o].arguments.size() != ops_[o].facts->writes.size()) return "E5: Op " + std::to_string(o) + " lacks arguments";
    for (const Slot& slot : ops_[o].arguments)
      for (const Ref& r : slot.refs)
        if (r.value >= 0 && !values_[size_t(r.value)].lost && values_[size_t(r.value)].producer == kNoOp && !finished && !available(r.value))
          return "E2: Value " + std::to_string(r.value) + " read by Op " + std::to_string(o) + " is neither held nor made again";
  }
  return "";
}

}  // namespace reprise::engine
