// From a finished Pass to a Trace: a plain value that the profiler can read without torch.
#include <ATen/Parallel.h>

#include <cstring>

#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {
namespace {

// Regions come from parameters: an Op that reads one belongs to its module. The label travels through casts of the parameter; Ops that read none belong to
// the smallest Region around them: the common prefix of their labelled neighbours.
class RegionFinder {
 public:
  explicit RegionFinder(std::vector<std::string>& names) : names_(names) {}

  void label(std::vector<TraceOp>& ops, std::vector<int32_t> value_labels) {
    std::vector<int32_t> own(ops.size(), -1);
    for (size_t o = 0; o < ops.size(); o++) {
      bool all = !ops[o].inputs.empty();
      for (int32_t v : ops[o].inputs) {
        const int32_t l = value_labels[size_t(v)];
        all &= l >= 0;
        if (l >= 0) own[o] = l;
      }
      if (all)
        for (int32_t v : ops[o].outputs) value_labels[size_t(v)] = own[o];
    }
    std::vector<int32_t> after(ops.size(), -1);
    for (size_t o = ops.size(); o-- > 0;) after[o] = own[o] >= 0 ? own[o] : o + 1 < ops.size() ? after[o + 1] : -1;
    int32_t before = -1;
    for (size_t o = 0; o < ops.size(); o++) {
      if (own[o] >= 0) before = own[o];
      ops[o].region = own[o] >= 0 ? own[o] : common(before, after[o]);
    }
  }

 private:
  int32_t common(int32_t a, int32_t b) {
    if (a < 0 || b < 0) return 0;
    const std::string x = names_[size_t(a)], y = names_[size_t(b)];
    if (x == y) return a;
    size_t end = 0;
    for (size_t i = 0; i <= std::min(x.size(), y.size()); i++) {
      const bool stop_x = i == x.size() || x[i] == '.', stop_y = i == y.size() || y[i] == '.';
      if (stop_x && stop_y) end = i;
      if (i < std::min(x.size(), y.size()) && x[i] != y[i]) break;
    }
    const std::string prefix = x.substr(0, end);
    for (size_t i = 0; i < names_.size(); i++)
      if (names_[i] == prefix) return static_cast<int32_t>(i);
    names_.push_back(prefix);
    return static_cast<int32_t>(names_.size() - 1);
  }

  std::vector<std::string>& names_;
};

// FSDP copies a unit's parts into its all-gather, and what that brings into the parameters, in the same order: each parameter is labelled as its part.
void label_gathered(const OpLog& ops, std::vector<int32_t>& labels) {
  std::vector<int32_t> parts;
  for (const Op& op : ops) {
    if (op.facts->name == "fsdp::all_gather_copy_in" && !op.reads.empty()) parts.assign(op.reads.begin(), op.reads.end() - 1);  // the last one is the buffer
    if (op.facts->name != "fsdp::split_with_sizes_copy" || op.wrote.size() != parts.size()) continue;
    for (size_t i = 0; i < parts.size(); i++) labels[size_t(op.wrote[i].second)] = labels[size_t(parts[i])];
  }
}

}  // namespace

Trace Pass::trace(const std::unordered_map<c10::StorageImpl*, int32_t>& parameter_regions, std::vector<std::string> regions) const {
  std::lock_guard<std::mutex> lock(mutex_);
  Trace t;
  std::vector<int32_t> labels(values_.size(), -1);
  for (const auto& [storage, region] : parameter_regions) {
    const int32_t value = current_.find(storage);
    // Of a parameter that was written to in the Pass, what it shows last carries the label.
    if (value >= 0 && values_[size_t(value)].outside) labels[size_t(value)] = region;
  }
  label_gathered(ops_, labels);
  t.values.reserve(values_.size());
  for (size_t i = 0; i < values_.size(); i++) {
    const Value& v = values_[i];
    TraceValue out;
    out.bytes = v.bytes;
    out.producer = v.producer;
    out.outside = v.outside;
    out.saved = v.saved;
    out.must_keep = v.producer == kNoOp;
    if (v.packed) out.packed = v.packed->facts;
    out.reason = v.keep_reason ? v.keep_reason : v.outside ? "existed before the Pass" : "";
    t.values.push_back(std::move(out));
  }
  for (const Op& op : ops_) {
    TraceOp out;
    out.name = op.facts->name;
    out.inputs = op.reads;
    out.input_shapes = op.input_shapes;
    out.input_gradients = op.gradients;
    out.output_shapes = op.output_shapes;
    out.integers = op.integers;
    for (int32_t v : op.made)
      if (v >= 0) out.outputs.push_back(v);
    for (const auto& [argument, after] : op.wrote) {
      int32_t before = -1;
      for (int32_t r : op.reads)
        if (values_[size_t(r)].next == after) before = r;
      if (before >= 0) out.overwrites.emplace_back(before, after);
    }
    out.forward_seconds = op.forward_seconds;
    out.replay_seconds = op.replay_seconds;
    out.signature = op.signature;
    out.random = op.generator.defined();
    out.opaque = op.opaque_reason != nullptr;
    if (out.opaque)
      for (int32_t v : out.outputs) t.values[size_t(v)].reason = op.facts->name + ": " + t.values[size_t(v)].reason;
    t.ops.push_back(std::move(out));
  }
  RegionFinder(regions).label(t.ops, std::move(labels));
  t.regions = std::move(regions);
  t.events = events_;
  t.start_live_bytes = start_live_bytes;
  t.threads = settings_ ? settings_->threads : 1;
  t.pass_seconds = now_seconds() - started_seconds;
  for (const Op& op : ops_) t.signature = (t.signature ^ op.match) * 0x9e3779b97f4a7c15ull;
  return t;
}

void Pass::read_clock() {
  if (!clock_) return;
  const std::vector<OpTime> times = clock_->read();
  std::lock_guard<std::mutex> lock(mutex_);
  for (const OpTime& time : times) {
    if (size_t(time.op) >= ops_.size()) continue;  // launched, and nothing worth recording
    Op& op = ops_[size_t(time.op)];
    if (time.replay) op.saw_replay(time.seconds);
    else op.forward_seconds = time.seconds;
  }
}

double Pass::added_clock() const { return stream_ || at::get_num_threads() > 1 ? now_seconds() : thread_cpu_seconds(); }

double Pass::added_seconds() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return added_seconds_;
}

PassSeconds Pass::op_seconds() const {
  std::lock_guard<std::mutex> lock(mutex_);
  PassSeconds out;
  for (const Op& op : ops_) {
    out.forward.push_back(op.forward_seconds);
    out.replay.push_back(op.replay_seconds);
  }
  return out;
}

std::vector<uint64_t> Pass::structures() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint64_t> out;
  out.reserve(ops_.size());
  for (const Op& op : ops_) out.push_back(op.structure);
  return out;
}

std::vector<uint64_t> Pass::matches() const {
  std::vector<uint64_t> out;
  out.reserve(ops_.size());
  for (const Op& op : ops_) out.push_back(op.match);
  return out;
}

}  // namespace reprise::engine
