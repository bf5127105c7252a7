#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "policy/simulate.hpp"

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

class Execution {
 public:
  Execution(const Plan& plan, const Profile& profile, Memory& memory, Simulated& counts)
      : plan_(plan), p_(profile), memory_(memory), counts_(counts), state_(profile.values().size()) {
    for (size_t v = 0; v < state_.size(); v++) {
      dense_[p_.values()[v].trace_value] = static_cast<int32_t>(v);
      state_[v].saved = p_.values()[v].saved;
    }
    for (int32_t k : plan.keep)
      if (auto it = dense_.find(k); it != dense_.end()) state_[at(it->second)].kept = true;
    for (const PackedValue& k : plan.pack) {
      const int32_t v = dense(k.value);
      state_[at(v)].pack = true;
      packed_by_[p_.values()[at(v)].makers.back()].push_back(v);
    }
    for (size_t g = 0; g < plan.groups.size(); g++) {
      for (int32_t u : plan.groups[g].unpack) state_[at(dense(u))].unpackers++;
      by_trigger_[dense(plan.groups[g].trigger)].push_back(g);
      for (int32_t s : plan.groups[g].sources) state_[at(dense(s))].readers++;
    }
    find_op_steps();
  }

  void run() {
    buffers_.assign(p_.data().buffers.size(), nullptr);
    for (int32_t b = 0; b < p_.data().outside_buffers; b++) buffers_[at(b)] = memory_.take(p_.data().buffers[at(b)]);
    memory_.begin_pass();
    for (const Step& s : p_.steps()) step(s);
    counts_.end_live_bytes = live_;
  }

 private:
  struct State {
    bool saved = false;  // not released so far
    bool kept = false, program = false, there = false, retained = false, pack = false;
    int32_t readers = 0, unpackers = 0;  // Groups to come that read it, that unpack it
    void* pointer = nullptr;
    void* packed = nullptr;
  };

  int32_t dense(int32_t trace_value) const {
    const auto it = dense_.find(trace_value);
    if (it == dense_.end()) throw std::invalid_argument("simulate: Value " + std::to_string(trace_value) + " is not in the Profile");
    return it->second;
  }
  int64_t bytes(int32_t v) const { return p_.values()[at(v)].bytes; }

  void* take(int64_t n) {
    live_ += n;
    counts_.peak_live_bytes = std::max(counts_.peak_live_bytes, live_);
    return n > 0 ? memory_.take(n) : nullptr;
  }
  void give(void* pointer, int64_t n) {
    live_ -= n;
    if (n > 0) memory_.give(pointer, n);
  }

  // What each Op allocates itself, and Values whose storage is taken outside all of their makers (there the first maker takes it).
  void find_op_steps() {
    op_steps_.resize(p_.ops().size());
    std::vector<bool> inside(state_.size());
    int32_t open = -1;
    for (const Step& s : p_.steps()) {
      if (s.kind == StepKind::kOpBegin) open = s.id;
      if (s.kind == StepKind::kOpEnd) open = -1;
      if (open < 0) continue;
      if (s.kind == StepKind::kAllocate || s.kind == StepKind::kFree || s.kind == StepKind::kMake) op_steps_[at(open)].push_back(s);
      const auto& m = s.kind == StepKind::kMake ? p_.values()[at(s.id)].makers : std::vector<int32_t>{};
      if (std::find(m.begin(), m.end(), open) != m.end()) inside[at(s.id)] = true;
    }
    for (size_t v = 0; v < state_.size(); v++)
      if (!inside[v] && !p_.values()[v].makers.empty())
        op_steps_[at(p_.values()[v].makers.front())].insert(op_steps_[at(p_.values()[v].makers.front())].begin(),
                                                            Step{StepKind::kMake, static_cast<int32_t>(v)});
  }

  void maybe_drop(int32_t v) {
    State& s = state_[at(v)];
    if (!s.there || s.program || ((s.kept || s.retained) && (s.saved || s.readers > 0))) return;
    s.there = s.retained = false;
    give(s.pointer, bytes(v));
  }

  void maybe_drop_packed(int32_t v) {
    State& s = state_[at(v)];
    if (!s.pack || s.saved || s.readers > 0 || s.unpackers > 0) return;
    s.pack = false;
    give(s.packed, p_.values()[at(v)].packed.bytes);
  }

  void step(const Step& s) {
    State* v = s.kind >= StepKind::kMake && s.kind <= StepKind::kRelease ? &state_[at(s.id)] : nullptr;
    switch (s.kind) {
      case StepKind::kAllocate: buffers_[at(s.id)] = take(p_.data().buffers[at(s.id)]); return;
      case StepKind::kFree: return give(buffers_[at(s.id)], p_.data().buffers[at(s.id)]);
      case StepKind::kMake:
        v->pointer = take(bytes(s.id));
        v->there = v->program = true;
        return;
      case StepKind::kGone: v->program = false; return maybe_drop(s.id);
      case StepKind::kRelease:
        v->saved = false;
        maybe_drop(s.id);
        return maybe_drop_packed(s.id);
      case StepKind::kUnpack:
        if (!v->there) replay(s.id);
        return;
      case StepKind::kOpEnd:
        for (int32_t k : packed_by_[s.id]) state_[at(k)].packed = take(p_.values()[at(k)].packed.bytes);
        return;
      default: return;
    }
  }

  void replay(int32_t trigger) {
    const auto it = by_trigger_.find(trigger);
    if (it == by_trigger_.end() || it->second.empty())
      throw std::invalid_argument("simulate: Value " + std::to_string(p_.values()[at(trigger)].trace_value) + " is needed and no Group makes it");
    const Group& g = plan_.groups[it->second.front()];
    it->second.erase(it->second.begin());
    std::unordered_set<int32_t> ops(g.ops.begin(), g.ops.end()), sources;
    retain_.clear();
    for (int32_t r : g.retain) retain_.insert(dense(r));
    for (int32_t r : g.sources) {
      sources.insert(dense(r));
      if (!state_[at(dense(r))].there) throw std::invalid_argument("simulate: source " + std::to_string(r) + " is not there");
    }
    unpack_.clear();
    for (int32_t r : g.unpack) unpack_.insert(dense(r));
    if (unpack_.count(trigger)) restore(trigger);
    uses_.clear();
    for (int32_t o : g.ops)
      for (int32_t r : p_.ops()[at(o)].reads) uses_[r]++;
    for (int32_t o : g.ops) run_op(o, ops, sources);
    for (int32_t r : g.sources) {
      state_[at(dense(r))].readers--;
      maybe_drop(dense(r));
      maybe_drop_packed(dense(r));
    }
    for (int32_t r : unpack_) {
      state_[at(r)].unpackers--;
      maybe_drop_packed(r);
    }
  }

  void restore(int32_t v) {
    state_[at(v)].pointer = take(bytes(v));
    state_[at(v)].there = true;
    state_[at(v)].retained = retain_.count(v) > 0;
  }

  void run_op(int32_t o, const std::unordered_set<int32_t>& ops, const std::unordered_set<int32_t>& sources) {
    counts_.replayed_ops++;
    for (int32_t r : p_.ops()[at(o)].reads)
      if (unpack_.count(r) && !state_[at(r)].there) restore(r), fresh_.insert(r);
    std::map<int32_t, void*> temporary;                 // by buffer
    std::vector<std::pair<void*, int64_t>> by_product;  // outputs nobody waits for
    for (const Step& s : op_steps_[at(o)]) {
      if (s.kind == StepKind::kAllocate) temporary[s.id] = take(p_.data().buffers[at(s.id)]);
      if (s.kind == StepKind::kFree && temporary.count(s.id)) give(temporary[s.id], p_.data().buffers[at(s.id)]), temporary.erase(s.id);
      if (s.kind != StepKind::kMake) continue;
      State& v = state_[at(s.id)];
      const auto& makers = p_.values()[at(s.id)].makers;
      const bool whole = !makers.empty() && std::all_of(makers.begin(), makers.end(), [&](int32_t m) { return ops.count(m) > 0; });
      void* pointer = take(bytes(s.id));
      if (v.there || sources.count(s.id) || unpack_.count(s.id) || !whole) by_product.push_back({pointer, bytes(s.id)});
      else v.pointer = pointer, v.there = true, v.retained = retain_.count(s.id) > 0, fresh_.insert(s.id);
    }
    for (auto [b, pointer] : temporary) give(pointer, p_.data().buffers[at(b)]);
    for (auto [pointer, n] : by_product) give(pointer, n);
    for (int32_t r : p_.ops()[at(o)].reads)
      if (--uses_[r] == 0) end_use(r);
    const std::unordered_set<int32_t> made = fresh_;
    for (int32_t v : made)
      if (uses_[v] == 0 && p_.values()[at(v)].makers.back() <= o) end_use(v);
  }

  // A Value made by the running Group has no reader left in it.
  void end_use(int32_t v) {
    if (fresh_.erase(v) && !state_[at(v)].retained) {
      state_[at(v)].there = false;
      give(state_[at(v)].pointer, bytes(v));
    }
  }

  const Plan& plan_;
  const Profile& p_;
  Memory& memory_;
  Simulated& counts_;
  std::vector<State> state_;
  std::vector<void*> buffers_;
  std::unordered_map<int32_t, int32_t> dense_, uses_;
  std::unordered_map<int32_t, std::vector<size_t>> by_trigger_;
  std::unordered_map<int32_t, std::vector<int32_t>> packed_by_;  // Op -> Values packed after it
  std::vector<std::vector<Step>> op_steps_;
  std::unordered_set<int32_t> retain_, unpack_, fresh_;
  int64_t live_ = 0;
};

}  // namespace

void execute(const Plan& plan, const Profile& profile, Memory& memory, Simulated& counts) { Execution(plan, profile, memory, counts).run(); }

}  // namespace reprise
