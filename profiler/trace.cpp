#include "profiler/trace.hpp"

#include <stdexcept>
#include <unordered_set>

namespace reprise {
namespace {

[[noreturn]] void violated(const char* number, const std::string& what) { throw std::invalid_argument(std::string("Trace ") + number + ": " + what); }

std::string op_text(size_t op, const TraceOp& o) { return "op " + std::to_string(op) + " (" + o.name + ")"; }

void check_value(const Trace& t, int64_t value, const std::string& where) {
  if (value < 0 || value >= static_cast<int64_t>(t.values.size()))
    violated("T1", where + " names Value " + std::to_string(value) + ", there are " + std::to_string(t.values.size()));
}

void check_ops(const Trace& t) {
  for (size_t i = 0; i < t.ops.size(); i++) {
    const TraceOp& o = t.ops[i];
    for (int32_t v : o.inputs) check_value(t, v, op_text(i, o));
    for (int32_t v : o.outputs) check_value(t, v, op_text(i, o));
    for (auto [before, after] : o.overwrites) {
      check_value(t, before, op_text(i, o));
      check_value(t, after, op_text(i, o));
    }
    if (o.region < 0 || o.region >= static_cast<int32_t>(t.regions.size()))
      violated("T1", op_text(i, o) + " names Region " + std::to_string(o.region) + ", there are " + std::to_string(t.regions.size()));
    for (int32_t v : o.outputs) {
      const int32_t producer = t.values[static_cast<size_t>(v)].producer;
      if (producer != kNoOp && producer != static_cast<int32_t>(i))
        violated("T3", op_text(i, o) + " makes Value " + std::to_string(v) + ", whose producer is op " + std::to_string(producer));
    }
  }
}

void check_values(const Trace& t) {
  for (size_t v = 0; v < t.values.size(); v++) {
    const TraceValue& value = t.values[v];
    if (value.producer != kNoOp && (value.producer < 0 || value.producer >= static_cast<int32_t>(t.ops.size())))
      violated("T1", "Value " + std::to_string(v) + " names op " + std::to_string(value.producer) + ", there are " + std::to_string(t.ops.size()));
    if (value.outside && value.producer != kNoOp)
      violated("T2", "Value " + std::to_string(v) + " came from outside and has producer op " + std::to_string(value.producer));
    if (value.bytes < 0) violated("T1", "Value " + std::to_string(v) + " has " + std::to_string(value.bytes) + " bytes");
  }
  for (int32_t v : t.held) check_value(t, v, "held");
}

void check_events(const Trace& t) {
  std::unordered_set<int64_t> allocated, freed;  // of this Pass
  for (size_t i = 0; i < t.events.size(); i++) {
    const TraceEvent& e = t.events[i];
    const std::string where = "event " + std::to_string(i);
    switch (e.mark) {
      case Mark::kAllocate:
        if (e.b < 0) violated("T4", where + " allocates " + std::to_string(e.b) + " bytes");
        allocated.insert(e.a);
        freed.erase(e.a);
        break;
      case Mark::kFree:
        if (e.b < 0) violated("T4", where + " frees " + std::to_string(e.b) + " bytes");
        freed.insert(e.a);
        break;
      case Mark::kOpBegin:  // operators that make no Value share the next number, so one past the end is legal
      case Mark::kOpEnd:
        if (e.a < 0 || e.a > static_cast<int64_t>(t.ops.size()))
          violated("T1", where + " names op " + std::to_string(e.a) + ", there are " + std::to_string(t.ops.size()));
        break;
      case Mark::kBorn:
        check_value(t, e.a, where);
        if (freed.count(e.b)) violated("T4", where + ": Value " + std::to_string(e.a) + " is born at an address that was freed");
        break;
      case Mark::kSaved:
      case Mark::kGone:
      case Mark::kUnpack:
      case Mark::kRelease: check_value(t, e.a, where); break;
      case Mark::kReplayBegin:
        if (e.a != -1) check_value(t, e.a, where);
        break;
      case Mark::kForwardEnd:
      case Mark::kReplayEnd:
      case Mark::kPassEnd: break;
    }
  }
}

}  // namespace

void Trace::validate() const {
  if (regions.empty()) violated("T1", "there is no Region 0");
  check_values(*this);
  check_ops(*this);
  check_events(*this);
}

}  // namespace reprise
