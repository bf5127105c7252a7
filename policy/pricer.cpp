#include "policy/pricer.hpp"

#include <algorithm>
#include <array>

namespace reprise {
namespace {
size_t at(int32_t i) { return static_cast<size_t>(i); }

template <class Lists>
void flatten(size_t n, Lists&& list, std::vector<int32_t>& start, std::vector<int32_t>& flat) {
  start.assign(1, 0);
  for (size_t i = 0; i < n; i++) {
    const auto& l = list(i);
    flat.insert(flat.end(), l.begin(), l.end());
    start.push_back(static_cast<int32_t>(flat.size()));
  }
}
}  // namespace

Instance::Instance(const Profile& p, double overhead) : profile(&p), time(Timeline::of(p)), overhead_seconds(overhead), seconds(p.replay_seconds()) {
  std::vector<std::vector<int32_t>> makes(p.ops().size());
  for (const ProfileOp& o : p.ops()) rise.push_back(o.rise_bytes);
  for (size_t v = 0; v < p.values().size(); v++) {
    const ProfileValue& value = p.values()[v];
    bytes.push_back(value.bytes);
    saved.push_back(value.saved);
    must_keep.push_back(value.must_keep);
    packed_bytes.push_back(value.packed.bytes);
    pack_seconds.push_back(value.packed.pack_seconds);
    unpack_seconds.push_back(value.packed.unpack_seconds > 0 ? value.packed.unpack_seconds : value.packed.pack_seconds);
    for (int32_t o : value.makers) makes[at(o)].push_back(static_cast<int32_t>(v));
  }
  flatten(
      p.ops().size(), [&](size_t o) -> const auto& { return p.ops()[o].reads; }, read_at, read);
  flatten(
      p.values().size(), [&](size_t v) -> const auto& { return p.values()[v].makers; }, maker_at, maker);
  flatten(
      p.ops().size(), [&](size_t o) -> const auto& { return makes[o]; }, made_at, made);
}

Choice::Choice(const Instance& in) : keep(in.must_keep), pack(at(in.values())), memo(at(in.values())), cut(at(in.ops())) {}

Pricer::Pricer(const Instance& in)
    : in_(in),
      change_(at(in.time.cells) + 1),
      extra_(at(in.time.cells)),
      level_(at(in.time.cells)),
      until_(at(in.values())),
      last_source_(at(in.values())),
      reach_(at(in.values())),
      uses_(at(in.values())),
      source_stamp_(at(in.values())),
      op_stamp_(at(in.ops())),
      made_stamp_(at(in.values())),
      unpack_stamp_(at(in.values())),
      packed_(at(in.values())) {}

void Pricer::begin(const Choice& choice) {
  std::fill(change_.begin(), change_.end(), 0);
  std::fill(extra_.begin(), extra_.end(), 0);
  std::fill(last_source_.begin(), last_source_.end(), -1);
  groups_.clear();
  seconds_ = 0;
  operations_ = 0;
  std::array<int32_t, Choice::kLevels> next;  // first Op behind a cut above each level
  next.fill(in_.ops());
  for (int32_t o = in_.ops(); o-- > 0;) {
    for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++)
      if (const int32_t v = in_.made[at(k)]; in_.last_maker(v) == o) reach_[at(v)] = next[choice.memo[at(v)]];
    for (int32_t level = 0; level < choice.cut[at(o)]; level++) next[at(level)] = o;
  }
  for (int32_t v = 0; v < in_.values(); v++) {
    const bool kept = choice.keep[at(v)] || in_.must_keep[at(v)];
    until_[at(v)] = kept ? in_.time.cells + 1 : -1;
    packed_[at(v)] = !kept && choice.pack[at(v)] && in_.packed_bytes[at(v)] > 0;
  }
}

void Pricer::price(const Choice& choice, int64_t limit_bytes, bool record) {
  begin(choice);
  for (const Timeline::Unpack& u : in_.time.unpacks)
    if (!is_there(u.value, u.cell)) run_group(u.value, u.cell, record);
  add_packed();
  sum_levels(choice, limit_bytes);
}

// Ops, Sources and what is unpacked of the Group, by a walk from the trigger's makers backwards.
void Pricer::collect(int32_t trigger, int32_t cell) {
  tick_++;
  group_.clear();
  sources_.clear();
  unpacked_.clear();
  todo_.clear();
  const auto want = [&](int32_t v) {
    if (packed_[at(v)]) {
      if (unpack_stamp_[at(v)] == tick_) return;
      unpack_stamp_[at(v)] = tick_;
      last_source_[at(v)] = cell;
      return unpacked_.push_back(v);
    }
    for (int32_t k = in_.maker_at[at(v)]; k < in_.maker_at[at(v) + 1]; k++) {
      const int32_t o = in_.maker[at(k)];
      if (op_stamp_[at(o)] == tick_) continue;
      op_stamp_[at(o)] = tick_;
      todo_.push_back(o);
    }
  };
  want(trigger);
  while (!todo_.empty()) {
    const int32_t o = todo_.back();
    todo_.pop_back();
    group_.push_back(o);
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++) {
      const int32_t v = in_.read[at(k)];
      if (!is_there(v, cell)) want(v);
      else if (source_stamp_[at(v)] != tick_) {
        source_stamp_[at(v)] = tick_;
        last_source_[at(v)] = cell;
        sources_.push_back(v);
      }
    }
  }
  std::sort(group_.begin(), group_.end());
}

bool Pricer::retains(int32_t v, int32_t trigger, int32_t cell) const {
  return v == trigger || (in_.time.last_unpack[at(v)] > cell && in_.last_maker(trigger) < reach_[at(v)]);
}

// Made or unpacked in the Group that is being walked.
void Pricer::bring_back(int32_t v, int32_t trigger, int32_t cell) {
  made_stamp_[at(v)] = tick_;
  walk_level_ += in_.bytes[at(v)];
  if (retains(v, trigger, cell)) retained_.push_back(v), uses_[at(v)]++;
}

// The level inside the Group, Op by Op; what it retains is live from the next cell on.
void Pricer::walk(int32_t trigger, int32_t cell) {
  for (int32_t o : group_) {
    for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++) uses_[at(in_.made[at(k)])] = 0;
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++) uses_[at(in_.read[at(k)])] = 0;
  }
  for (int32_t o : group_)
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++) uses_[at(in_.read[at(k)])]++;
  retained_.clear();
  walk_level_ = walk_top_ = 0;
  for (int32_t v : unpacked_) seconds_ += in_.unpack_seconds[at(v)] + in_.overhead_seconds;
  if (packed_[at(trigger)]) bring_back(trigger, trigger, cell), walk_top_ = walk_level_;
  for (int32_t o : group_) {
    seconds_ += in_.seconds[at(o)] + in_.overhead_seconds;
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++)
      if (const int32_t v = in_.read[at(k)]; unpack_stamp_[at(v)] == tick_ && made_stamp_[at(v)] != tick_) bring_back(v, trigger, cell);
    walk_top_ = std::max(walk_top_, walk_level_ + in_.rise[at(o)]);
    for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++) {
      const int32_t v = in_.made[at(k)];
      const int32_t last = in_.last_maker(v);
      if (is_there(v, cell) || packed_[at(v)] || op_stamp_[at(last)] != tick_) continue;  // a by-product of an Op that runs anyway: dies with it
      if (made_stamp_[at(v)] != tick_) bring_back(v, trigger, cell);                      // its first maker here
      if (uses_[at(v)] == 0 && o == last) walk_level_ -= in_.bytes[at(v)];
    }
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++) {
      const int32_t v = in_.read[at(k)];
      if (--uses_[at(v)] == 0 && made_stamp_[at(v)] == tick_) walk_level_ -= in_.bytes[at(v)];
    }
    walk_top_ = std::max(walk_top_, walk_level_);
  }
  operations_ += static_cast<int64_t>(group_.size());
  extra_[at(cell)] = walk_top_;
}

void Pricer::run_group(int32_t trigger, int32_t cell, bool record) {
  collect(trigger, cell);
  walk(trigger, cell);
  for (int32_t v : retained_) {
    const int32_t end = in_.time.last_release[at(v)];
    until_[at(v)] = end;
    change_[at(cell) + 1] += in_.bytes[at(v)];
    change_[at(end)] -= in_.bytes[at(v)];
  }
  if (record) groups_.push_back({trigger, group_, retained_, sources_, unpacked_});
}

// A packed form that nobody asks for is not made.
void Pricer::add_packed() {
  for (int32_t v = 0; v < in_.values(); v++) {
    if (!packed_[at(v)] || !(in_.saved[at(v)] || last_source_[at(v)] >= 0)) continue;
    const int32_t from = in_.time.packed_from[at(v)];
    change_[at(from)] += in_.packed_bytes[at(v)];
    change_[at(std::max({from, in_.time.last_release[at(v)], last_source_[at(v)] + 1}))] -= in_.packed_bytes[at(v)];
    seconds_ += in_.pack_seconds[at(v)];
  }
}

void Pricer::sum_levels(const Choice& choice, int64_t limit_bytes) {
  for (int32_t v = 0; v < in_.values(); v++) {
    int32_t end = in_.time.gone[at(v)];
    if (choice.keep[at(v)] || in_.must_keep[at(v)]) end = std::max({end, in_.time.last_release[at(v)], last_source_[at(v)] + 1});
    change_[at(in_.time.birth[at(v)])] += in_.bytes[at(v)];
    change_[at(end)] -= in_.bytes[at(v)];
  }
  int64_t live = 0;
  peak_ = excess_ = 0;
  for (int32_t c = 0; c < in_.time.cells; c++) {
    live += change_[at(c)];
    const int64_t level = level_[at(c)] = live + std::max(in_.time.base_max[at(c)], in_.time.base_start[at(c)] + extra_[at(c)]);
    peak_ = std::max(peak_, level);
    if (level > limit_bytes) excess_ += level - limit_bytes;
  }
}

Plan Pricer::plan(const Choice& choice, std::string scheme, int64_t limit_bytes) {
  price(choice, limit_bytes, true);
  Plan p;
  const auto& values = in_.profile->values();
  const auto number = [&](std::vector<int32_t> list) {
    for (int32_t& v : list) v = values[at(v)].trace_value;
    return list;
  };
  for (int32_t v = 0; v < in_.values(); v++)
    if ((choice.keep[at(v)] || in_.must_keep[at(v)]) && (in_.saved[at(v)] || last_source_[at(v)] >= 0)) p.keep.push_back(values[at(v)].trace_value);
  std::sort(p.keep.begin(), p.keep.end());
  for (int32_t v = 0; v < in_.values(); v++)
    if (packed_[at(v)] && (in_.saved[at(v)] || last_source_[at(v)] >= 0)) p.pack.push_back({values[at(v)].trace_value, values[at(v)].packed.form});
  std::sort(p.pack.begin(), p.pack.end());
  for (const Group& g : groups_) p.groups.push_back({values[at(g.trigger)].trace_value, g.ops, number(g.retain), number(g.sources), number(g.unpack)});
  p.scheme = std::move(scheme);
  p.trace_signature = in_.profile->data().trace_signature;
  p.value_count = in_.profile->data().trace_values;
  p.op_count = in_.ops();
  p.limit_bytes = limit_bytes < kNoLimit ? limit_bytes : 0;
  p.predicted_live_bytes = peak_;
  p.added_seconds = seconds_;
  p.validate();
  return p;
}

}  // namespace reprise
