#include "profiler/profile.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "profiler/reduce.hpp"

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

void require(bool holds, const char* number, const std::string& what) {
  if (!holds) throw std::invalid_argument(std::string("Profile ") + number + ": " + what);
}

bool in_range(int64_t i, size_t n) { return i >= 0 && i < static_cast<int64_t>(n); }
bool sane(double seconds) { return std::isfinite(seconds) && seconds >= 0; }

void check_ops(const ProfileData& d) {
  for (size_t i = 0; i < d.ops.size(); i++) {
    const ProfileOp& o = d.ops[i];
    const std::string where = "op " + std::to_string(i);
    require(in_range(o.region, d.regions.size()), "F1", where + " names Region " + std::to_string(o.region));
    require(o.rise_bytes >= 0 && o.flops >= 0 && o.gradient_flops >= 0, "F1", where + " has a negative count");
    require(sane(o.forward_seconds) && sane(o.replay_seconds), "F1", where + " has seconds that are negative or no number");
    std::unordered_set<int32_t> seen;
    for (int32_t v : o.reads) {
      require(in_range(v, d.values.size()), "F1", where + " reads Value " + std::to_string(v) + ", there are " + std::to_string(d.values.size()));
      require(seen.insert(v).second, "F3", where + " reads Value " + std::to_string(v) + " twice");
      const auto& makers = d.values[at(v)].makers;
      require(makers.empty() || makers.back() < static_cast<int32_t>(i), "F3", where + " reads Value " + std::to_string(v) + " before it is made");
    }
  }
}

void check_packed(const ProfileValue& value, const std::string& where) {
  const PackingFacts& p = value.packed;
  require(sane(p.pack_seconds) && sane(p.unpack_seconds), "F1", where + " has packing seconds that are negative or no number");
  if (p.form == Packing::kNone) return require(p == PackingFacts{}, "F6", where + " has no packed form and something to know of it");
  require(p.bytes > 0 && p.bytes < value.bytes, "F6", where + " is packed to " + std::to_string(p.bytes) + " of " + std::to_string(value.bytes) + " bytes");
  require(!value.must_keep, "F6", where + " must be kept and has a packed form");
}

void check_values(const ProfileData& d) {
  std::unordered_set<int32_t> numbers;
  for (size_t v = 0; v < d.values.size(); v++) {
    const ProfileValue& value = d.values[v];
    const std::string where = "Value " + std::to_string(v);
    require(value.bytes >= 0, "F1", where + " has " + std::to_string(value.bytes) + " bytes");
    require(in_range(value.trace_value, at(d.trace_values)), "F5", where + " has Trace number " + std::to_string(value.trace_value));
    require(numbers.insert(value.trace_value).second, "F5", where + " shares Trace number " + std::to_string(value.trace_value));
    bool safe = !value.makers.empty();
    for (size_t i = 0; i < value.makers.size(); i++) {
      require(in_range(value.makers[i], d.ops.size()), "F1", where + " is made by op " + std::to_string(value.makers[i]));
      require(i == 0 || value.makers[i - 1] < value.makers[i], "F2", where + " has makers out of order");
      safe = safe && d.ops[at(value.makers[i])].replayable;
    }
    require(safe || value.must_keep, "F2", where + " cannot be made again and is not kept");
    check_packed(value, where);
  }
}

// F4, by one walk over the steps.
class StepCheck {
 public:
  explicit StepCheck(const ProfileData& d) : d_(d), value_(d.values.size()), buffer_(d.buffers.size()), op_(d.ops.size()) {}

  void run() {
    for (size_t b = 0; b < buffer_.size(); b++) buffer_[b] = static_cast<int32_t>(b) < d_.outside_buffers ? 1 : 0;
    for (i_ = 0; i_ < d_.steps.size(); i_++) step(d_.steps[i_]);
    require(open_op_ < 0, "F4", "op " + std::to_string(open_op_) + " has no end");
    for (size_t v = 0; v < value_.size(); v++) require(value_[v] & kMade, "F4", "Value " + std::to_string(v) + " is never made");
  }

 private:
  enum : int32_t { kMade = 1, kGoneBit = 2, kReleased = 4 };

  void step(const Step& s) {
    const std::string where = "step " + std::to_string(i_);
    switch (s.kind) {
      case StepKind::kAllocate: return buffer(s.id, 0, where);
      case StepKind::kFree: return buffer(s.id, 1, where);
      case StepKind::kMake: return value(s.id, 0, kMade, where);
      case StepKind::kGone: return value(s.id, kMade, kGoneBit, where);
      case StepKind::kRelease: return value(s.id, kMade, kReleased, where);
      case StepKind::kUnpack: return value(s.id, kMade, 0, where);
      case StepKind::kOpBegin:
        require(in_range(s.id, op_.size()) && !op_[at(s.id)] && open_op_ < 0, "F4",
                where + " begins op " + std::to_string(s.id) + " a second time or inside another");
        op_[at(s.id)] = true;
        open_op_ = s.id;
        return;
      case StepKind::kOpEnd:
        require(s.id == open_op_ && open_op_ >= 0, "F4", where + " ends op " + std::to_string(s.id) + ", which is not open");
        open_op_ = -1;
        return;
      case StepKind::kForwardEnd:
        require(!forward_end_, "F4", where + " ends the forward a second time");
        forward_end_ = true;
        return;
    }
  }

  void buffer(int32_t b, int32_t expected, const std::string& where) {
    require(in_range(b, buffer_.size()), "F1", where + " names buffer " + std::to_string(b));
    require(buffer_[at(b)] == expected, "F4", where + (expected ? " frees" : " allocates") + " buffer " + std::to_string(b) + " out of turn");
    buffer_[at(b)]++;
  }

  void value(int32_t v, int32_t needed, int32_t sets, const std::string& where) {
    require(in_range(v, value_.size()), "F1", where + " names Value " + std::to_string(v));
    int32_t& state = value_[at(v)];
    require((state & needed) == needed && (state & sets) == 0 && (sets == kGoneBit || (state & kReleased) == 0), "F4",
            where + " comes out of turn for Value " + std::to_string(v));
    require(sets == kMade || sets == kGoneBit || d_.values[at(v)].saved, "F4",
            where + " unpacks or releases Value " + std::to_string(v) + ", which is not saved");
    state |= sets;
  }

  const ProfileData& d_;
  std::vector<int32_t> value_, buffer_;
  std::vector<bool> op_;
  size_t i_ = 0;
  int32_t open_op_ = -1;
  bool forward_end_ = false;
};

double median_or_zero(std::vector<float>& x) {
  if (x.empty()) return 0;
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return static_cast<double>(*middle);
}

void add_sample(std::vector<float>& samples, double seconds) {
  if (samples.size() >= Profile::kMaxSamples) samples.erase(samples.begin());
  samples.push_back(static_cast<float>(seconds));
}

// Equal Ops do equal work: what differs between them is noise, and must not decide which of them runs again.
void share_medians(ProfileData& d) {
  std::unordered_map<uint64_t, std::pair<std::vector<float>, std::vector<float>>> all;
  for (size_t o = 0; o < d.ops.size(); o++) {
    auto& [forward, replay] = all[d.ops[o].signature];
    forward.insert(forward.end(), d.samples[o].begin(), d.samples[o].end());
    replay.insert(replay.end(), d.replay_samples[o].begin(), d.replay_samples[o].end());
  }
  std::unordered_map<uint64_t, std::pair<double, double>> shared;
  for (auto& [signature, samples] : all) shared[signature] = {median_or_zero(samples.first), median_or_zero(samples.second)};
  for (ProfileOp& o : d.ops) std::tie(o.forward_seconds, o.replay_seconds) = shared[o.signature];
}

}  // namespace

Profile::Profile(ProfileData data) : data_(std::move(data)) {
  require(!data_.regions.empty(), "F1", "there is no Region 0");
  require(data_.trace_values >= 0 && data_.start_live_bytes >= 0 && data_.threads >= 1 && data_.passes >= 1 && sane(data_.pass_seconds), "F1",
          "a count is out of range");
  require(in_range(data_.outside_buffers, data_.buffers.size() + 1), "F1", "outside_buffers is " + std::to_string(data_.outside_buffers));
  require(data_.samples.size() == data_.ops.size() && data_.replay_samples.size() == data_.ops.size(), "F1", "there is not one list of samples per op");
  for (int64_t b : data_.buffers) require(b >= 0, "F1", "a buffer has " + std::to_string(b) + " bytes");
  check_values(data_);
  check_ops(data_);
  StepCheck(data_).run();
}

Profile Profile::from_trace(const Trace& trace) {
  ProfileData d = Reducer(trace).run();
  share_medians(d);
  return Profile(std::move(d));
}

std::vector<double> Profile::replay_seconds() const {
  std::unordered_map<std::string, std::pair<double, double>> sums;  // by name: replay, forward
  std::pair<double, double> all{0, 0};
  for (const ProfileOp& o : ops()) {
    if (o.replay_seconds <= 0) continue;
    auto& s = sums[o.name];
    s.first += o.replay_seconds, s.second += o.forward_seconds;
    all.first += o.replay_seconds, all.second += o.forward_seconds;
  }
  std::vector<double> out;
  for (const ProfileOp& o : ops()) {
    const auto it = sums.find(o.name);
    const auto& s = it != sums.end() && it->second.second > 0 ? it->second : all;
    out.push_back(o.replay_seconds > 0 ? o.replay_seconds : s.second > 0 ? o.forward_seconds * s.first / s.second : o.forward_seconds);
  }
  return out;
}

std::vector<RegionRow> Profile::regions() const {
  std::vector<RegionRow> rows(data_.regions.size());
  std::vector<bool> used(rows.size());
  const std::vector<double> again = replay_seconds();
  for (size_t o = 0; o < ops().size(); o++) {
    RegionRow& row = rows[at(ops()[o].region)];
    used[at(ops()[o].region)] = true;
    row.forward_seconds += ops()[o].forward_seconds;
    row.replay_seconds += again[o];
    row.flops += ops()[o].flops;
  }
  for (const ProfileValue& v : values())
    if (v.saved && !v.makers.empty()) rows[at(ops()[at(v.makers.back())].region)].saved_bytes += v.bytes;
  std::vector<RegionRow> out;
  for (size_t r = 0; r < rows.size(); r++) {
    rows[r].name = data_.regions[r];
    if (used[r]) out.push_back(std::move(rows[r]));
  }
  return out;
}

int64_t Profile::saved_bytes() const {
  int64_t sum = 0;
  for (const ProfileValue& v : values()) sum += v.saved ? v.bytes : 0;
  return sum;
}

int64_t Profile::flops() const {
  int64_t sum = 0;
  for (const ProfileOp& o : ops()) sum += o.flops;
  return sum;
}

int64_t Profile::useful_flops() const {
  int64_t sum = 0;
  for (const ProfileOp& o : ops()) sum += o.flops + o.gradient_flops;
  return sum;
}

namespace {

void require_same_step(const ProfileData& d, const Trace& later) {
  if (later.signature != d.trace_signature)
    throw std::invalid_argument("settled: Trace signature is " + std::to_string(later.signature) + ", the Profile's is " + std::to_string(d.trace_signature));
  if (later.ops.size() != d.ops.size())
    throw std::invalid_argument("settled: Trace has " + std::to_string(later.ops.size()) + " ops, the Profile has " + std::to_string(d.ops.size()));
}

}  // namespace

Profile settled(const Profile& first, const Trace& later) {
  require_same_step(first.data(), later);
  ProfileData d = Reducer(later).run();
  for (size_t o = 0; o < d.ops.size(); o++) {
    if (d.replay_samples[o].empty()) d.replay_samples[o] = first.data().replay_samples[o];
  }
  share_medians(d);
  std::unordered_map<int32_t, const PackingFacts*> known;
  for (const ProfileValue& v : first.values()) known[v.trace_value] = &v.packed;
  for (ProfileValue& v : d.values)
    if (const auto it = known.find(v.trace_value); it != known.end() && !v.must_keep && it->second->bytes < v.bytes) {
      if (v.packed.form == Packing::kNone) v.packed = *it->second;
      else if (v.packed.unpack_seconds <= 0) v.packed.unpack_seconds = it->second->unpack_seconds;
    }
  return Profile(std::move(d));
}

Profile without_packing(const Profile& profile, const std::vector<int32_t>& trace_values) {
  ProfileData d = profile.data();
  for (ProfileValue& v : d.values)
    if (std::find(trace_values.begin(), trace_values.end(), v.trace_value) != trace_values.end()) v.packed = {};
  return Profile(std::move(d));
}

Profile refine(const Profile& profile, const PassSeconds& later) {
  ProfileData d = profile.data();
  for (const auto* seconds : {&later.forward, &later.replay})
    if (seconds->size() != d.ops.size())
      throw std::invalid_argument("refine: seconds of " + std::to_string(seconds->size()) + " ops, the Profile has " + std::to_string(d.ops.size()));
  for (size_t o = 0; o < d.ops.size(); o++) {
    if (later.forward[o] > 0) add_sample(d.samples[o], later.forward[o]);
    if (later.replay[o] > 0) add_sample(d.replay_samples[o], later.replay[o]);
  }
  share_medians(d);
  d.passes++;
  return Profile(std::move(d));
}

}  // namespace reprise
