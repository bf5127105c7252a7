// Replay: runs recorded Ops again, below autograd and autocast, each once and forwards, under the conditions they were recorded in.
//
// R2  only recorded operators run: no hook, no Python.   R3  each at most once, and only if something needed depends on it.
// R5  private generators, recorded settings.             R6  what an Op wrote outside is not written again.
// R7  every live Source is checked for version, size and identity before it is read.
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {

class Replay {
 public:
  explicit Replay(Pass& pass) : pass_(pass) {}
  ~Replay() {
    for (int32_t v : in_use_) pass_.values_[size_t(v)].in_use = false;
    pass_.replaying_ = std::thread::id{};
    pass_.running_ = nullptr;
  }

  bool plan_group(int32_t trigger, const Group& group) {
    trigger_ = trigger;
    for (int32_t s : group.sources)
      if (!pass_.available(s)) return false;
    for (int32_t u : group.unpack)
      if (!pass_.available(u) && !pass_.is_packed(u)) return false;
    for (int32_t o : group.ops)
      if (size_t(o) >= pass_.ops_.size() || pass_.ops_[size_t(o)].opaque_reason) return false;
    order_.assign(group.ops.begin(), group.ops.end());
    retain_ = {group.retain.begin(), group.retain.end()};
    unpack_ = {group.unpack.begin(), group.unpack.end()};
    count_uses();
    return true;
  }

  // Everything that `trigger` needs, back to what is there or packed. Where no Plan says more, retains the saved Values of the trigger's own group on the way.
  void plan_closure(int32_t trigger) {
    trigger_ = trigger;
    retain_.insert(trigger);
    if (pass_.is_packed(trigger)) return;
    std::vector<uint8_t> needed(pass_.ops_.size(), 0), seen(pass_.values_.size(), 0);
    std::vector<int32_t> todo;
    auto want = [&](int32_t v) {
      if (v < 0 || seen[size_t(v)]) return;
      seen[size_t(v)] = 1;
      if (pass_.available(v) || pass_.is_packed(v)) return;
      if (pass_.values_[size_t(v)].producer == kNoOp) return;  // read_source says what happened to it
      todo.push_back(v);
    };
    const int32_t group = pass_.values_[size_t(trigger)].group;
    want(trigger);
    const bool planned = pass_.options_.following && pass_.values_[size_t(trigger)].producer < pass_.broken_at_;
    for (size_t v = 0; v < pass_.values_.size() && !planned; v++)
      if (const Value& mate = pass_.values_[v]; mate.handles > 0 && mate.group == group && mate.producer != kNoOp && pass_.is_open(mate)) {
        want(int32_t(v));
        retain_.insert(int32_t(v));
      }
    while (!todo.empty()) {
      const int32_t o = pass_.values_[size_t(todo.back())].producer;
      todo.pop_back();
      if (needed[size_t(o)]) continue;
      needed[size_t(o)] = 1;
      for (const Slot& slot : pass_.ops_[size_t(o)].arguments)
        for (const Ref& r : slot.refs) want(r.value);
    }
    for (size_t o = 0; o < needed.size(); o++)
      if (needed[o]) order_.push_back(int32_t(o));
    count_uses();
  }

  // Everything that no Op still to come reads, and that is not what was asked for. Frees at once: nothing here was ever seen by Python.
  size_t give_up(size_t bytes) {
    size_t freed = 0;
    for (auto it = fresh_.begin(); it != fresh_.end() && freed < bytes;) {
      const bool spare = it->first != trigger_ && uses_[it->first] == 0 && retain_.count(it->first) && it->second.use_count() == 1;
      if (!spare) {
        ++it;
        continue;
      }
      freed += it->second.nbytes();
      counters.revoked++;
      counters.revoked_bytes += int64_t(it->second.nbytes());
      retain_.erase(it->first);
      it = fresh_.erase(it);
    }
    return freed;
  }

  void plan_everything() {
    from_scratch_ = true;
    for (size_t o = 0; o < pass_.ops_.size(); o++)
      if (!pass_.ops_[size_t(o)].opaque_reason) order_.push_back(int32_t(o));
    count_uses();
  }

  void run() {
    c10::impl::ExcludeDispatchKeyGuard no_recording(c10::DispatchKey::Fake);
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    c10::impl::ExcludeDispatchKeyGuard no_modes(c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
    at::AutoDispatchBelowADInplaceOrView below;
    pass_.running_ = this;
    pass_.replaying_ = std::this_thread::get_id();
    counters.replays++;
    std::shared_ptr<const Ready> ready;
    {
      StreamChain chain;
      if (trigger_ >= 0) bring_back_packed(trigger_);
      for (int32_t o : order_) {
        chain.go_to(pass_.ops_[size_t(o)].stream);
        run_op(o);
      }
      chain.go_to(chain.consumer());
      ready = Ready::here();
    }
    const int task = current_task();
    for (auto& [v, storage] : fresh_) {
      Value& value = pass_.values_[size_t(v)];
      if (from_scratch_ || !retain_.count(v) || value.held || (value.handles == 0 && value.reads_left == 0)) continue;
      value.held = std::move(storage);
      value.held_is_private = true;
      value.memo_task = task;
      value.ready = ready;
      pass_.tag_made(v, value.held);
      pass_.tag_held(value);
    }
  }

 private:
  void count_uses() {
    for (int32_t o : order_)
      for (const Slot& slot : pass_.ops_[size_t(o)].arguments)
        for (const Ref& r : slot.refs)
          if (r.value >= 0) {
            uses_[r.value]++;
            Value& v = pass_.values_[size_t(r.value)];
            if (!v.in_use) {
              v.in_use = true;
              in_use_.push_back(r.value);
            }
          }
  }

  void bring_back_packed(int32_t v) {
    if (!fresh_.count(v) && pass_.is_packed(v) && !pass_.available(v)) fresh_.emplace(v, pass_.unpack_value(v));
  }

  c10::Storage read_source(const Ref& r, const Op& op) {
    const Value& v = pass_.values_[size_t(r.value)];
    auto s = pass_.available(r.value);
    TORCH_CHECK(!v.lost && s, "reprise: ", op.facts->name, " cannot be run again: the ", r.geometry.text(),
                " it read was overwritten where no operator could see it ",
                "(through numpy, .data or a raw pointer) after it was used. Wrap that part of the model in reprise.keep().");
    TORCH_CHECK(static_cast<int64_t>(s->nbytes()) >= v.bytes, "reprise: ", op.facts->name, " cannot be run again: the storage of the ", r.geometry.text(),
                " it read was resized from ", v.bytes, " to ", s->nbytes(), " bytes");
    if (v.outside && !v.held_is_private) {
      v.version.check(r.geometry, [&] { return ", needed to recompute " + op.facts->name + ","; });
      if (v.has_fingerprint)
        TORCH_CHECK(fingerprint_of(*s) == v.fingerprint, "reprise: ", op.facts->name, " cannot be run again: the ", r.geometry.text(),
                    " it read was overwritten where no operator could see it (through numpy, .data or a raw pointer)");
    }
    return *s;
  }

  at::Tensor argument(const Ref& r, const Op& op, bool written, bool hidden) {
    if (r.value == kMetadata) {
      c10::DataPtr nothing(nullptr, r.geometry.device);
      return r.geometry.over(c10::Storage(c10::Storage::use_byte_size_t{}, size_t{1} << 40, std::move(nothing), nullptr, false));
    }
    bring_back_packed(r.value);
    auto it = fresh_.find(r.value);
    const bool ours = it != fresh_.end();
    if (hidden) {  // R6: what it writes there was written once already
      auto s = pass_.available(pass_.latest(r.value));
      if (!s) s = pass_.available(r.value);
      return r.geometry.over(clone_storage(s ? *s : read_source(r, op)));
    }
    c10::Storage s = ours ? it->second : read_source(r, op);
    // In place on a Value that others still need, or that is not ours: on a copy.
    if (written && (!ours || retain_.count(r.value) || uses_[r.value] > 1)) s = clone_storage(s);
    if (pass_.many_streams_) used_on(s, op.stream);
    return r.geometry.over(std::move(s));
  }

  void push_arguments(Op& op, torch::jit::Stack& stack) {
    for (size_t i = 0; i < op.arguments.size(); i++) {
      const Slot& slot = op.arguments[i];
      int32_t after = -1;
      for (const auto& w : op.wrote)
        if (w.first == int(i)) after = w.second;
      const bool hidden = op.facts->writes[i] == 2 && op.hidden_write;
      auto one = [&](const Ref& r) {
        at::Tensor t = argument(r, op, after >= 0, hidden);
        if (after >= 0) written_.emplace_back(after, t.storage());
        return t;
      };
      if (slot.kind == Slot::Kind::kPlain) {
        if (int(i) == op.facts->generator_argument && op.generator.defined()) stack.emplace_back(copy_generator(op.generator));
        else stack.push_back(slot.plain);
      } else if (slot.kind == Slot::Kind::kTensor) {
        stack.emplace_back(one(slot.refs[0]));
      } else if (slot.kind == Slot::Kind::kTensorList) {
        c10::List<at::Tensor> list;
        for (const Ref& r : slot.refs) list.push_back(r.value == -1 ? at::Tensor() : one(r));
        stack.emplace_back(std::move(list));
      } else {
        c10::List<std::optional<at::Tensor>> list;
        for (const Ref& r : slot.refs) list.push_back(r.value == -1 ? std::nullopt : std::optional<at::Tensor>(one(r)));
        stack.emplace_back(std::move(list));
      }
    }
  }

  void run_op(int32_t index) {
    Op& op = pass_.ops_[size_t(index)];
    torch::jit::Stack stack;
    written_.clear();
    push_arguments(op, stack);
    const double began = pass_.op_clock(op);
    {
      SettingsScope as_recorded(*op.settings);
      std::optional<DefaultGeneratorScope> as_drawn;
      if (op.draws_from_default && op.generator.defined()) as_drawn.emplace(op.generator);
      const Timed timed(pass_.clock_.get(), index, true, op.stream);
      op.handle.redispatchBoxed(op.keys, &stack);
    }
    if (!op.stream) op.saw_replay(pass_.op_clock(op) - began);  // on a device that was the launch alone
    counters.replayed++;
    collect(index, op, stack);
    stack.clear();
    forget_used(op);
  }

  void collect(int32_t index, const Op& op, const torch::jit::Stack& stack) {
    for (auto& w : written_) take(index, w.first, w.second);
    size_t k = 0;
    auto one = [&](const at::Tensor& t) {
      if (k < op.made.size() && op.made[k] >= 0 && t.defined()) take(index, op.made[k], t.storage());
      k++;
    };
    for (const c10::IValue& out : stack) {
      if (out.isTensor()) one(out.toTensor());
      else if (out.isTensorList())
        for (const at::Tensor& t : out.toTensorVector()) one(t);
      else k++;
    }
  }

  void take(int32_t index, int32_t v, const c10::Storage& storage) {
    Value& value = pass_.values_[size_t(v)];
    const Op& op = pass_.ops_[size_t(index)];
    if (value.producer != index) return;  // settled since: its content came from elsewhere, and is held
    if (value.has_fingerprint && !value.uninitialised) {
      TORCH_CHECK(fingerprint_of(storage) == value.fingerprint, "reprise: replaying Op ", index, " (", op.facts->name, ") gave other bits than its first run");
      counters.verified++;
    }
    if (unpack_.count(v)) return;  // a by-product
    fresh_.insert_or_assign(v, storage);
    if (uses_[v] == 0 && !retain_.count(v)) fresh_.erase(v);
  }

  void forget_used(const Op& op) {
    for (const Slot& slot : op.arguments)
      for (const Ref& r : slot.refs) {
        if (r.value < 0) continue;
        if (--uses_[r.value] == 0 && !retain_.count(r.value)) fresh_.erase(r.value);
      }
  }

  Pass& pass_;
  bool from_scratch_ = false;
  int32_t trigger_ = -1;
  std::vector<int32_t> order_, in_use_;
  std::unordered_set<int32_t> retain_, unpack_;
  std::unordered_map<int32_t, int> uses_;
  std::unordered_map<int32_t, c10::Storage> fresh_;  // made here
  std::vector<std::pair<int32_t, c10::Storage>> written_;
};

void replay(Pass& pass, int32_t trigger, const Group* group) {
  Replay run(pass);
  if (!group || !run.plan_group(trigger, *group)) {
    counters.unplanned++;
    run.plan_closure(trigger);
  }
  run.run();
}

size_t give_up_retained(Replay& replay, size_t bytes) { return replay.give_up(bytes); }

void replay_everything(Pass& pass) {
  Replay run(pass);
  run.plan_everything();
  run.run();
}

}  // namespace reprise::engine
