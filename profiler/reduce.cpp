#include "profiler/reduce.hpp"

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "profiler/flops.hpp"

namespace reprise {
namespace {
size_t at(int32_t i) { return static_cast<size_t>(i); }
}  // namespace

Reducer::Reducer(const Trace& trace) : trace_(trace) { trace.validate(); }

ProfileData Reducer::run() {
  unite_versions();
  scan_events();
  find_chains();
  find_replayable_ops();
  decide_what_must_stay();
  number_values();
  fill_ops();
  fill_rises();
  number_buffers();
  fill_steps();
  out_.trace_signature = trace_.signature;
  out_.trace_values = static_cast<int32_t>(trace_.values.size());
  out_.regions = trace_.regions;
  out_.start_live_bytes = trace_.start_live_bytes;
  out_.pass_seconds = trace_.pass_seconds;
  out_.threads = trace_.threads;
  return std::move(out_);
}

int32_t Reducer::last_version(int32_t value) {
  while (final_[at(value)] != value) {
    final_[at(value)] = final_[at(final_[at(value)])];
    value = final_[at(value)];
  }
  return value;
}

void Reducer::unite_versions() {
  final_.resize(trace_.values.size());
  std::iota(final_.begin(), final_.end(), 0);
  for (const TraceOp& op : trace_.ops)
    for (auto [before, after] : op.overwrites) {
      const int32_t a = last_version(before), b = last_version(after);
      final_[at(std::min(a, b))] = std::max(a, b);
    }
}

void Reducer::scan_events() {
  chains_.resize(trace_.values.size());
  allocation_of_value_.assign(trace_.values.size(), -1);
  allocation_of_.assign(trace_.events.size(), -1);
  op_begin_.assign(trace_.ops.size(), -1);
  op_end_.assign(trace_.ops.size(), -1);
  int depth = 0;
  for (int32_t i = 0; at(i) < trace_.events.size(); i++) {
    const TraceEvent& e = trace_.events[at(i)];
    if (e.mark == Mark::kReplayBegin) depth++;
    if (e.mark == Mark::kReplayEnd) depth = std::max(0, depth - 1);
    scan_event(i, e, depth > 0);
  }
}

void Reducer::on_allocate(int32_t position, const TraceEvent& event, bool in_replay) {
  if (event.b == 0) return;
  if (auto it = live_.find(event.a); it != live_.end()) allocations_[at(it->second)].end = position;  // its free was not seen
  live_[event.a] = static_cast<int32_t>(allocations_.size());
  allocation_of_[at(position)] = static_cast<int32_t>(allocations_.size());
  Allocation made;
  made.bytes = event.b;
  made.begin = position;
  made.replay = in_replay;
  allocations_.push_back(made);
}

void Reducer::on_free(int32_t position, const TraceEvent& event, bool) {
  auto it = live_.find(event.a);
  if (it == live_.end()) {
    if (event.b == 0) return;
    Allocation outside;
    outside.bytes = event.b;
    outside.end = position;
    allocation_of_[at(position)] = static_cast<int32_t>(allocations_.size());
    allocations_.push_back(outside);
    return;
  }
  allocations_[at(it->second)].end = position;
  allocation_of_[at(position)] = it->second;
  live_.erase(it);
}

void Reducer::on_born(int32_t position, const TraceEvent& event) {
  const auto v = static_cast<int32_t>(event.a);
  Chain& c = chains_[at(v)];
  if (c.born < 0) c.born = position;
  if (auto it = live_.find(event.b); it != live_.end() && !allocations_[at(it->second)].replay) {
    Allocation& a = allocations_[at(it->second)];
    allocation_of_value_[at(v)] = it->second;
    if (a.root >= 0) {  // a later version of the same storage
      const int32_t x = last_version(a.root), y = last_version(v);
      if (x != y) final_[at(std::min(x, y))] = std::max(x, y);
    }
    a.root = v;
  }
}

void Reducer::scan_event(int32_t position, const TraceEvent& e, bool in_replay) {
  const auto id = static_cast<int32_t>(e.a);
  const auto last = [&](int32_t& slot) { slot = position; };
  const auto first = [&](int32_t& slot) {
    if (slot < 0) slot = position;
  };
  switch (e.mark) {
    case Mark::kAllocate: return on_allocate(position, e, in_replay);
    case Mark::kFree: return on_free(position, e, in_replay);
    case Mark::kBorn: return in_replay ? void() : on_born(position, e);
    case Mark::kOpBegin:
      if (!in_replay && at(id) < op_begin_.size()) last(op_begin_[at(id)]);
      return;
    case Mark::kOpEnd:
      if (!in_replay && at(id) < op_end_.size()) last(op_end_[at(id)]);
      return;
    case Mark::kGone: return last(chains_[at(id)].gone);
    case Mark::kUnpack: first(chains_[at(id)].first_unpack); return last(chains_[at(id)].last_unpack);
    case Mark::kRelease: return last(chains_[at(id)].release);
    case Mark::kSaved: chains_[at(id)].saved = true; return;
    default: return;
  }
}

void Reducer::find_chains() {
  for (int32_t v = 0; at(v) < trace_.values.size(); v++) {
    const int32_t f = last_version(v);
    final_[at(v)] = f;
    Chain &c = chains_[at(f)], own = chains_[at(v)];
    const TraceValue& value = trace_.values[at(v)];
    c.outside = c.outside || value.outside || (own.born >= 0 && allocation_of_value_[at(v)] < 0 && value.bytes > 0);
    if (allocation_of_value_[at(v)] >= 0) c.allocation = allocation_of_value_[at(v)];
    if (value.producer != kNoOp) c.makers.push_back(value.producer);
    const bool saved = value.saved || own.saved || own.first_unpack >= 0;
    c.saved = c.saved || saved;
    if (own.born >= 0) c.born = c.born < 0 ? own.born : std::min(c.born, own.born);
    if (c.reason.empty() && value.must_keep) c.reason = value.reason.empty() ? "marked by the recorder" : value.reason;
    if (c.reason.empty() && value.producer == kNoOp) c.reason = value.reason.empty() ? "no recorded operator makes it" : value.reason;
    if (v == f) continue;
    c.old_version_saved = c.old_version_saved || saved;
    if (own.first_unpack >= 0) c.first_unpack = c.first_unpack < 0 ? own.first_unpack : std::min(c.first_unpack, own.first_unpack);
    c.last_unpack = std::max(c.last_unpack, own.last_unpack);
    c.release = std::max(c.release, own.release);
  }
  for (int32_t v = 0; at(v) < trace_.values.size(); v++) {
    Chain& c = chains_[at(v)];
    if (final_[at(v)] != v || trace_.values[at(v)].outside || c.born < 0) continue;
    c.planned = true;
    std::sort(c.makers.begin(), c.makers.end());
    c.makers.erase(std::unique(c.makers.begin(), c.makers.end()), c.makers.end());
    if (c.allocation >= 0) {
      const int32_t freed = allocations_[at(c.allocation)].end;
      if (freed >= 0 && (c.gone < 0 || freed < c.gone)) c.gone = freed;
    }
  }
}

// An Op may run again when it is pure, everything it reads still shows what it showed, and it makes exactly one planned storage if it writes in place.
bool Reducer::may_run_again(int32_t op) const {
  const TraceOp& o = trace_.ops[at(op)];
  if (o.opaque || op_begin_[at(op)] < 0) return false;
  std::unordered_set<int32_t> written, made;
  for (auto [before, after] : o.overwrites) {
    written.insert(before);
    if (trace_.values[at(after)].producer == op) made.insert(final_[at(after)]);
  }
  const bool in_place = !made.empty();
  for (int32_t v : o.outputs)
    if (chain_at(v).planned) made.insert(final_[at(v)]);
  if (in_place && made.size() > 1) return false;
  return std::all_of(o.inputs.begin(), o.inputs.end(), [&](int32_t v) {
    if (written.count(v)) return true;
    if (final_[at(v)] != v) return false;                        // reads a version that is overwritten later
    return trace_.values[at(v)].outside || chain_at(v).planned;  // never born: nobody could hand it over
  });
}

void Reducer::find_replayable_ops() {
  replayable_.resize(trace_.ops.size());
  for (int32_t o = 0; at(o) < trace_.ops.size(); o++) replayable_[at(o)] = may_run_again(o);
}

void Reducer::decide_what_must_stay() {
  for (int32_t v = 0; at(v) < trace_.values.size(); v++) {
    Chain& c = chains_[at(v)];
    if (!c.planned || !c.reason.empty()) continue;
    const auto safe = [&](int32_t o) { return replayable_[at(o)]; };
    if (c.outside) c.reason = "part of a storage from outside the Pass";
    else if (c.allocation < 0) c.reason = "no bytes of its own";
    else if (c.makers.empty()) c.reason = "no recorded operator makes it";
    else if (!std::all_of(c.makers.begin(), c.makers.end(), safe)) c.reason = "its operator cannot run again";
    else if (c.old_version_saved) c.reason = "an overwritten version of it is saved";
    else if (c.first_unpack >= 0 && (c.gone < 0 || c.gone > c.first_unpack)) c.reason = "held by the program when backward needs it";
  }
}

void Reducer::number_values() {
  std::vector<int32_t> order;
  for (int32_t v = 0; at(v) < trace_.values.size(); v++)
    if (chains_[at(v)].planned) order.push_back(v);
  const auto birth = [&](int32_t v) {
    const Chain& c = chains_[at(v)];
    return c.allocation >= 0 ? allocations_[at(c.allocation)].begin : c.born;
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return birth(a) < birth(b); });
  for (int32_t v : order) {
    Chain& c = chains_[at(v)];
    c.value = static_cast<int32_t>(out_.values.size());
    ProfileValue p;
    p.trace_value = v;
    p.bytes = c.allocation >= 0 && !c.outside ? allocations_[at(c.allocation)].bytes : 0;
    p.makers = c.makers;
    p.saved = c.saved;
    p.must_keep = !c.reason.empty();
    p.reason = c.reason;
    if (!p.must_keep && p.bytes == trace_.values[at(v)].bytes) p.packed = trace_.values[at(v)].packed;
    out_.values.push_back(std::move(p));
  }
}

// Where autograd asks for no gradient at all, it works above what was recorded (tensor subclasses): then all of them count.
static bool gradients_known(const Trace& trace) {
  return std::any_of(trace.ops.begin(), trace.ops.end(), [](const TraceOp& o) {
    return std::any_of(o.input_gradients.begin(), o.input_gradients.end(), [](uint8_t asked) { return asked != 0; });
  });
}

void Reducer::fill_ops() {
  const bool known = gradients_known(trace_);
  for (int32_t i = 0; at(i) < trace_.ops.size(); i++) {
    const TraceOp& o = trace_.ops[at(i)];
    ProfileOp p;
    p.name = o.name;
    p.forward_seconds = o.forward_seconds;
    p.replay_seconds = o.replay_seconds;
    p.flops = operator_flops(o);
    if (known) {
      p.gradient_flops = gradient_flops(o);
    } else {
      TraceOp all = o;
      all.input_gradients.clear();
      p.gradient_flops = gradient_flops(all);
    }
    p.signature = o.signature;
    p.region = o.region;
    p.replayable = replayable_[at(i)];
    std::unordered_set<int32_t> seen, own;
    for (auto [before, after] : o.overwrites) own.insert(final_[at(after)]);
    for (int32_t v : o.outputs) own.insert(final_[at(v)]);
    for (int32_t v : o.inputs) {
      const Chain& c = chain_at(v);
      if (own.count(final_[at(v)]) || !c.planned || final_[at(v)] != v) continue;
      if (!c.makers.empty() && c.makers.back() >= i) continue;
      if (seen.insert(c.value).second) p.reads.push_back(c.value);
    }
    out_.samples.push_back({static_cast<float>(o.forward_seconds)});
    out_.replay_samples.push_back(o.replay_seconds > 0 ? std::vector<float>{static_cast<float>(o.replay_seconds)} : std::vector<float>{});
    out_.ops.push_back(std::move(p));
  }
}

void Reducer::fill_rises() {
  for (int32_t o = 0; at(o) < trace_.ops.size(); o++) {
    const int32_t begin = op_begin_[at(o)], end = op_end_[at(o)];
    int64_t level = 0, top = 0;
    for (int32_t i = std::max(begin, 0); begin >= 0 && i <= end; i++) {
      const int32_t a = allocation_of_[at(i)];
      if (a < 0 || allocations_[at(a)].replay || allocations_[at(a)].begin < begin) continue;
      level += allocations_[at(a)].begin == i ? allocations_[at(a)].bytes : -allocations_[at(a)].bytes;
      top = std::max(top, level);
    }
    out_.ops[at(o)].rise_bytes = top;
  }
}

void Reducer::number_buffers() {
  for (int32_t v = 0; at(v) < trace_.values.size(); v++)
    if (Chain& c = chains_[at(v)]; c.planned && c.allocation >= 0) allocations_[at(c.allocation)].root = v;
  const auto is_buffer = [&](const Allocation& a) { return !a.replay && (a.root < 0 || !chains_[at(final_[at(a.root)])].planned); };
  for (int pass = 0; pass < 2; pass++)
    for (Allocation& a : allocations_) {
      if (!is_buffer(a) || (a.begin < 0) != (pass == 0)) continue;
      a.buffer = static_cast<int32_t>(out_.buffers.size());
      out_.buffers.push_back(a.bytes);
      if (pass == 0) out_.outside_buffers++;
    }
}

void Reducer::fill_steps() {
  std::vector<std::vector<Step>> extra(trace_.events.size());  // steps that belong to Values, by event
  for (int32_t v = 0; at(v) < trace_.values.size(); v++) {
    const Chain& c = chains_[at(v)];
    if (!c.planned) continue;
    extra[at(c.allocation >= 0 && !c.outside ? allocations_[at(c.allocation)].begin : c.born)].push_back({StepKind::kMake, c.value});
    if (c.gone >= 0) extra[at(c.gone)].push_back({StepKind::kGone, c.value});
    if (c.release >= 0 && c.release > c.last_unpack) extra[at(c.release)].push_back({StepKind::kRelease, c.value});
  }
  bool forward = true;
  for (int32_t i = 0; at(i) < trace_.events.size(); i++) {
    const TraceEvent& e = trace_.events[at(i)];
    const auto id = static_cast<int32_t>(e.a);
    const int32_t a = allocation_of_[at(i)];
    if (a >= 0 && allocations_[at(a)].buffer >= 0) {  // an allocation whose free was not seen ends where the next one begins
      out_.steps.push_back({e.mark == Mark::kAllocate ? StepKind::kAllocate : StepKind::kFree, allocations_[at(a)].buffer});
    }
    for (const Step& s : extra[at(i)]) out_.steps.push_back(s);
    if (e.mark == Mark::kOpBegin && at(id) < op_begin_.size() && op_begin_[at(id)] == i) out_.steps.push_back({StepKind::kOpBegin, id});
    if (e.mark == Mark::kOpEnd && at(id) < op_end_.size() && op_end_[at(id)] == i) out_.steps.push_back({StepKind::kOpEnd, id});
    if (e.mark == Mark::kUnpack && chain(id).planned) out_.steps.push_back({StepKind::kUnpack, chain(id).value});
    if (e.mark == Mark::kForwardEnd && std::exchange(forward, false)) out_.steps.push_back({StepKind::kForwardEnd, 0});
  }
}

}  // namespace reprise
