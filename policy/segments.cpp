#include "policy/segments.hpp"

#include <algorithm>
#include <cmath>

#include "policy/blocks.hpp"

namespace reprise {
namespace {
size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr float kNever = 1e30F;
}  // namespace

Segments::Segments(const Instance& in, const std::vector<int32_t>& borders, const std::vector<Bound::Trade>& trades, const Choice& base, int64_t most_bytes)
    : in_(in), base_(base), slot_(std::max<int64_t>(1, most_bytes / (kSlots - 1))), all_(base) {
  for (int32_t v = 0; v < in.values(); v++) all_.keep[at(v)] |= in.saved[at(v)];
  cut(borders);
  find_backward_cells();
  add_options(trades);
  solve();
}

// At most kMost segments: every n-th border where there are more.
void Segments::cut(const std::vector<int32_t>& borders) {
  const size_t step = std::max<size_t>(1, (borders.size() + at(kMost) - 1) / at(kMost));
  std::vector<int32_t> places = {0};
  for (size_t i = step - 1; i < borders.size(); i += step)
    if (borders[i] > places.back()) places.push_back(borders[i]);
  places.push_back(in_.ops());
  for (size_t i = 0; i + 1 < places.size(); i++) {
    Segment s;
    s.first = places[i], s.end = places[i + 1];
    if (i > 0)
      for (int32_t v : crossing_values(*in_.profile, s.first))
        if (!in_.must_keep[at(v)] && !base_.keep[at(v)] && in_.last_maker(v) >= places[i - 1]) s.crossing.push_back(v);
    int64_t bytes = 0;
    for (int32_t v : s.crossing) bytes += in_.bytes[at(v)];
    s.crossing_slots = slots(bytes);
    for (int32_t o = s.first; o < s.end; o++) s.forward += in_.seconds[at(o)] + in_.overhead_seconds;
    segments_.push_back(std::move(s));
  }
}

void Segments::find_backward_cells() {
  segment_of_.resize(at(in_.ops()));
  owner_.assign(at(in_.time.cells), -1);
  for (size_t s = 0; s < segments_.size(); s++)
    for (int32_t o = segments_[s].first; o < segments_[s].end; o++) segment_of_[at(o)] = static_cast<int32_t>(s);
  for (const Timeline::Unpack& u : in_.time.unpacks)
    if (in_.last_maker(u.value) >= 0) owner_[at(u.cell)] = segment_of_[at(in_.last_maker(u.value))];
  int32_t now = static_cast<int32_t>(segments_.size()) - 1;
  for (int32_t c = in_.time.forward_end; c < in_.time.cells; c++) owner_[at(c)] = owner_[at(c)] >= 0 ? now = owner_[at(c)] : now;
}

// Per Op: whether it helps to make something saved in its segment that does not cross its end.
std::vector<uint8_t> Segments::serving() const {
  std::vector<uint8_t> out(at(in_.ops())), wanted(at(in_.values()));
  for (int32_t v = 0; v < in_.values(); v++) wanted[at(v)] = in_.saved[at(v)] && !in_.must_keep[at(v)] && !base_.keep[at(v)];
  for (const Segment& s : segments_)
    for (int32_t v : s.crossing) wanted[at(v)] = 0;
  for (size_t s = segments_.size(); s-- > 0;)
    for (int32_t o = segments_[s].end; o-- > segments_[s].first;) {
      for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++) out[at(o)] |= wanted[at(in_.made[at(k)])];
      if (!out[at(o)]) continue;
      for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++) {
        const int32_t v = in_.read[at(k)], maker = in_.last_maker(v);
        if (maker >= segments_[s].first) wanted[at(v)] = 1;
      }
    }
  return out;
}

Segments::Option Segments::option(size_t s, const std::function<bool(int32_t)>& keeps) const {
  Option out;
  int64_t kept = 0;
  for (int32_t o = segments_[s].first; o < segments_[s].end; o++)
    for (int32_t i = in_.made_at[at(o)]; i < in_.made_at[at(o) + 1]; i++) {
      const int32_t v = in_.made[at(i)];
      if (in_.last_maker(v) != o || in_.must_keep[at(v)] || base_.keep[at(v)]) continue;
      const auto crosses = [&](const Segment& next) { return std::find(next.crossing.begin(), next.crossing.end(), v) != next.crossing.end(); };
      if ((s + 1 < segments_.size() && crosses(segments_[s + 1])) || keeps(v)) out.keep.push_back(v), kept += in_.bytes[at(v)];
      else if (base_.pack[at(v)] && in_.saved[at(v)]) kept += in_.packed_bytes[at(v)];
    }
  out.kept = slots(kept);
  return out;
}

// Everything outside the segment kept: what is added, and how high its own backward rises above what the others hold.
void Segments::price(size_t s, Option option, Pricer& pricer) {
  Choice c = all_;
  std::vector<int64_t> others(at(in_.time.cells) + 1);
  for (int32_t v = 0; v < in_.values(); v++) {
    if (!in_.saved[at(v)] || in_.last_maker(v) < 0) continue;
    const bool own = segment_of_[at(in_.last_maker(v))] == static_cast<int32_t>(s);
    if (own) c.keep[at(v)] = base_.keep[at(v)];
    else
      others[at(in_.time.birth[at(v)])] += in_.bytes[at(v)],
          others[at(std::min(in_.time.cells, std::max(in_.time.gone[at(v)], in_.time.last_release[at(v)])))] -= in_.bytes[at(v)];
  }
  for (int32_t v : option.keep) c.keep[at(v)] = 1;
  for (int32_t o : option.cuts) c.cut[at(o)] = 1;
  pricer.price(c, kNoLimit);
  int64_t held = 0, top = 0;
  for (int32_t i = 0; i < in_.time.cells; i++) {
    held += others[at(i)];
    if (owner_[at(i)] == static_cast<int32_t>(s)) top = std::max(top, pricer.levels()[at(i)] - held);
  }
  option.seconds = pricer.seconds();
  option.needs = std::max(slots(top), option.kept);
  auto& list = segments_[s].options;
  if (std::none_of(list.begin(), list.end(), [&](const Option& x) { return x.kept <= option.kept && x.needs <= option.needs && x.seconds <= option.seconds; }))
    list.push_back(std::move(option));
}

// All that is saved; as traded; only what crosses into the next segment. Each with what it drops made again in one go, and one by one.
void Segments::add_options(const std::vector<Bound::Trade>& trades) {
  const auto serves = serving();
  Pricer pricer(in_);
  for (size_t s = 0; s < segments_.size(); s++) {
    Segment& segment = segments_[s];
    for (int32_t o = segment.first; o < segment.end; o++) segment.inner += serves[at(o)] ? in_.seconds[at(o)] + in_.overhead_seconds : 0;
    price(s, option(s, [&](int32_t v) { return in_.saved[at(v)] != 0; }), pricer);
    for (size_t k = 0; k <= trades.size(); k++) {
      Option traded = option(s, [&](int32_t v) { return k < trades.size() && trades[k].keep[at(v)] != 0; });
      price(s, traded, pricer);
      for (int32_t o = segment.first + 1; o < segment.end; o++) traded.cuts.push_back(o);
      price(s, std::move(traded), pricer);
    }
  }
}

void Segments::solve() {
  const auto n = static_cast<int32_t>(segments_.size());
  table_.assign(at(n * n) * kSlots, {kNever, -1, -1});
  for (int32_t length = 1; length <= n; length++)
    for (int32_t s = 0; s + length <= n; s++) solve_range(s, s + length - 1);
}

void Segments::solve_range(int32_t s, int32_t t) {
  const Segment& segment = segments_[at(s)];
  const auto offer = [&](int32_t m, double seconds, int32_t option, int32_t checkpoint) {
    Best& b = best(s, t, m);
    if (static_cast<float>(seconds) < b.seconds) b = {static_cast<float>(seconds), static_cast<int16_t>(option), static_cast<int16_t>(checkpoint)};
  };
  for (size_t j = 0; j < segment.options.size(); j++) {
    const Option& o = segment.options[j];
    for (int32_t m = o.needs; m < kSlots; m++) {
      const double rest = s == t ? 0 : best(s + 1, t, m - std::min(m, o.kept)).seconds;
      if (m >= o.kept) offer(m, o.seconds + rest, static_cast<int32_t>(j), -1);
    }
  }
  double forward = 0;
  for (int32_t k = s + 1; k <= t; k++) {
    const double again = forward + segments_[at(k - 1)].inner;
    forward += segments_[at(k - 1)].forward;
    const int32_t held = segments_[at(k)].crossing_slots;
    for (int32_t m = held; m < kSlots; m++)
      offer(m, again + static_cast<double>(best(k, t, m - held).seconds) + static_cast<double>(best(s, k - 1, m).seconds), -1, k);
  }
}

// Depth 0 runs in the forward itself: what it holds is kept. A range at depth d > 0 runs in one Group, which retains what has memo kLevels - 1 - d up to
// the range's end: there lies a checkpoint of depth d - 1, whose cut is one level higher.
void Segments::follow(int32_t s, int32_t t, int32_t m, int32_t depth, Choice& choice) const {
  const auto level = static_cast<uint8_t>(std::max(1, Choice::kLevels - 1 - depth));
  const auto hold = [&](const std::vector<int32_t>& values) {
    for (int32_t v : values) {  // a checkpoint is saved inside the range before it too: the outer level counts
      if (depth == 0) choice.keep[at(v)] = 1;
      else choice.memo[at(v)] = std::max(choice.memo[at(v)], level);
    }
  };
  const Best& b = best(s, t, m);
  if (b.checkpoint >= 0) {
    hold(segments_[at(b.checkpoint)].crossing);
    choice.cut[at(segments_[at(b.checkpoint)].first)] = level;
    follow(b.checkpoint, t, m - segments_[at(b.checkpoint)].crossing_slots, depth, choice);
    return follow(s, b.checkpoint - 1, m, depth + 1, choice);
  }
  const Option& option = segments_[at(s)].options[at(b.option)];
  hold(option.keep);
  for (int32_t o : option.cuts) choice.cut[at(o)] = std::max<uint8_t>(choice.cut[at(o)], 1);
  if (s == t) return;
  choice.cut[at(segments_[at(s)].end)] = std::max<uint8_t>(choice.cut[at(segments_[at(s)].end)], 1);
  follow(s + 1, t, m - option.kept, depth, choice);
}

bool Segments::propose(int64_t bytes, Choice& choice) const {
  const int32_t m = static_cast<int32_t>(std::min<int64_t>(kSlots - 1, bytes / slot_)), n = static_cast<int32_t>(segments_.size());
  if (n == 0 || m < 0 || best(0, n - 1, m).seconds >= kNever / 2) return false;
  choice = base_;
  follow(0, n - 1, m, 0, choice);
  return true;
}

}  // namespace reprise
