#include "profiler/scale.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace reprise {
namespace {

constexpr int64_t kMostSamples = int64_t{1} << 40;

void require_batch(const char* name, int64_t batch) {
  if (batch < 1 || batch > kMostSamples)
    throw std::invalid_argument(std::string("scaled: ") + name + " is " + std::to_string(batch) + ", must be in [1, " + std::to_string(kMostSamples) + "]");
}

[[noreturn]] void differ(const std::string& what) { throw std::invalid_argument("scaled: the two steps differ: " + what); }

void require_same_ops(const ProfileData& a, const ProfileData& b) {
  if (a.ops.size() != b.ops.size()) differ(std::to_string(a.ops.size()) + " operators against " + std::to_string(b.ops.size()));
  for (size_t o = 0; o < a.ops.size(); o++) {
    const std::string where = "operator " + std::to_string(o) + ", " + a.ops[o].name;
    if (a.ops[o].name != b.ops[o].name) differ(where + " against " + b.ops[o].name);
    if (a.ops[o].reads != b.ops[o].reads) differ(where + ", reads other Values");
    if (a.ops[o].replayable != b.ops[o].replayable) differ(where + ", may run again in one only");
  }
}

void require_same_step(const ProfileData& a, const ProfileData& b) {
  require_same_ops(a, b);
  if (a.values.size() != b.values.size()) differ(std::to_string(a.values.size()) + " Values against " + std::to_string(b.values.size()));
  for (size_t v = 0; v < a.values.size(); v++)
    if (a.values[v].makers != b.values[v].makers || a.values[v].saved != b.values[v].saved)
      differ("Value " + std::to_string(v) + " is made by other operators, or saved in one only");
  if (a.buffers.size() != b.buffers.size()) differ(std::to_string(a.buffers.size()) + " buffers against " + std::to_string(b.buffers.size()));
  if (a.outside_buffers != b.outside_buffers) differ("buffers that existed before");
  if (a.steps != b.steps) differ("order of events");
}

// The line through (first batch, a) and (second batch, b), at `batch`.
class Line {
 public:
  Line(int64_t first, int64_t second, int64_t batch) : share_(static_cast<double>(batch - first) / static_cast<double>(second - first)) {}

  int64_t bytes(int64_t a, int64_t b) const {
    if (rises(a, b)) return std::max<int64_t>(0, a + static_cast<int64_t>(std::ceil(share_ * static_cast<double>(b - a) - 1e-6)));
    return std::max(a, b);
  }
  double seconds(double a, double b) const { return rises(a, b) ? std::max(0.0, a + share_ * (b - a)) : std::max(a, b); }
  void set_order(bool second_is_larger) { upwards_ = second_is_larger; }

 private:
  template <class T>
  bool rises(T a, T b) const {
    return upwards_ ? b > a : a > b;
  }
  double share_;
  bool upwards_ = true;
};

void scale_value(ProfileValue& v, const ProfileValue& other, const Line& line) {
  v.bytes = line.bytes(v.bytes, other.bytes);
  if (other.must_keep && !v.must_keep) v.must_keep = true, v.reason = other.reason;
  if (v.must_keep || v.packed.form != other.packed.form) {
    v.packed = {};
    return;
  }
  v.packed.bytes = line.bytes(v.packed.bytes, other.packed.bytes);
  v.packed.pack_seconds = line.seconds(v.packed.pack_seconds, other.packed.pack_seconds);
  v.packed.unpack_seconds =
      v.packed.unpack_seconds > 0 && other.packed.unpack_seconds > 0 ? line.seconds(v.packed.unpack_seconds, other.packed.unpack_seconds) : 0;
  if (v.packed.bytes >= v.bytes) v.packed = {};
}

void scale_op(ProfileOp& o, const ProfileOp& other, const Line& line) {
  o.forward_seconds = line.seconds(o.forward_seconds, other.forward_seconds);
  o.replay_seconds = o.replay_seconds > 0 && other.replay_seconds > 0 ? line.seconds(o.replay_seconds, other.replay_seconds) : 0;
  o.flops = line.bytes(o.flops, other.flops);
  o.rise_bytes = line.bytes(o.rise_bytes, other.rise_bytes);
}

}  // namespace

Profile scaled(const Profile& first, int64_t first_batch, const Profile& second, int64_t second_batch, int64_t batch) {
  require_batch("first_batch", first_batch);
  require_batch("second_batch", second_batch);
  require_batch("batch", batch);
  if (first_batch == second_batch)
    throw std::invalid_argument("scaled: both batch sizes are " + std::to_string(first_batch) + ", two different ones are needed");
  const ProfileData& b = second.data();
  require_same_step(first.data(), b);
  Line line(first_batch, second_batch, batch);
  line.set_order(second_batch > first_batch);
  ProfileData d = first.data();
  for (size_t o = 0; o < d.ops.size(); o++) scale_op(d.ops[o], b.ops[o], line);
  for (size_t v = 0; v < d.values.size(); v++) scale_value(d.values[v], b.values[v], line);
  for (size_t i = 0; i < d.buffers.size(); i++) d.buffers[i] = line.bytes(d.buffers[i], b.buffers[i]);
  d.start_live_bytes = line.bytes(d.start_live_bytes, b.start_live_bytes);
  d.pass_seconds = line.seconds(d.pass_seconds, b.pass_seconds);
  d.trace_signature =
      d.trace_signature * 1'000'003 + b.trace_signature * 31 + static_cast<uint64_t>(batch);  // a step of its own: Plans of one are none of the other
  d.passes = std::min(d.passes, b.passes);
  for (auto* samples : {&d.samples, &d.replay_samples})
    for (auto& list : *samples) list.clear();
  return Profile(std::move(d));
}

}  // namespace reprise
