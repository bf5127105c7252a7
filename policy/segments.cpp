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
    : in_(in), base_(base), slot_(std::max<int64_t>(1, most_bytes / (kSlots - 1))) {
  cut(borders);
  add_options(trades);
  solve();
}

// At most kMost segments: every n-th border where there are more.
void Segments::cut(const std::vector<int32_t>& borders) {
  const size_t step = std::max<size_t>(1, (borders.size() + at(kMost) - 1) / at(kMost));
  std::vector<int32_t> places = {0};
  for (size_t i = step - 1; i < borders.size(); i += step) if (borders[i] > places.back()) places.push_back(borders[i]);
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

// Per segment: the highest level in its backward, with all that it saved and that is not yet released there; other segments' Values are not its own.
std::vector<int64_t> Segments::backward_levels() const {
  std::vector<int32_t> segment_of(at(in_.ops())), owner(at(in_.time.cells), -1);
  for (size_t s = 0; s < segments_.size(); s++) for (int32_t o = segments_[s].first; o < segments_[s].end; o++) segment_of[at(o)] = static_cast<int32_t>(s);
  std::vector<int64_t> held(segments_.size()), levels(segments_.size());
  std::vector<std::vector<int32_t>> released(at(in_.time.cells) + 1);
  const auto segment = [&](int32_t v) { return at(segment_of[at(in_.last_maker(v))]); };
  for (int32_t v = 0; v < in_.values(); v++) {
    if (!in_.saved[at(v)] || in_.last_maker(v) < 0 || in_.time.last_unpack[at(v)] < 0) continue;
    held[segment(v)] += in_.bytes[at(v)];
    released[at(std::min(in_.time.cells, in_.time.last_release[at(v)]))].push_back(v);
  }
  for (const Timeline::Unpack& u : in_.time.unpacks) if (in_.last_maker(u.value) >= 0) owner[at(u.cell)] = static_cast<int32_t>(segment(u.value));
  size_t now = segments_.size() - 1;
  for (int32_t c = 0; c < in_.time.cells; c++) {
    for (int32_t v : released[at(c)]) held[segment(v)] -= in_.bytes[at(v)];
    if (c < in_.time.forward_end) continue;
    if (owner[at(c)] >= 0) now = at(owner[at(c)]);
    levels[now] = std::max(levels[now], held[now] + in_.time.base_max[at(c)]);
  }
  return levels;
}

// Per Op: whether it helps to make something saved in its segment that does not cross its end.
std::vector<uint8_t> Segments::serving() const {
  std::vector<uint8_t> out(at(in_.ops())), wanted(at(in_.values()));
  for (int32_t v = 0; v < in_.values(); v++) wanted[at(v)] = in_.saved[at(v)] && !in_.must_keep[at(v)] && !base_.keep[at(v)];
  for (const Segment& s : segments_) for (int32_t v : s.crossing) wanted[at(v)] = 0;
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

void Segments::add_options(const std::vector<Bound::Trade>& trades) {
  const auto levels = backward_levels();
  const auto serves = serving();
  for (size_t s = 0; s < segments_.size(); s++) {
    Segment& segment = segments_[s];
    for (size_t k = 0; k <= trades.size() + 1; k++) {   // all that is saved; as traded; what crosses into the next segment only
      Option option;
      int64_t kept = 0;
      for (int32_t o = segment.first; o < segment.end; o++) {
        const double seconds = serves[at(o)] ? in_.seconds[at(o)] + in_.overhead_seconds : 0;
        if (k == 0) segment.inner += seconds;
        else if (k > trades.size() || trades[k - 1].again[at(o)]) option.seconds += seconds;
        for (int32_t i = in_.made_at[at(o)]; i < in_.made_at[at(o) + 1]; i++) {
          const int32_t v = in_.made[at(i)];
          if (in_.last_maker(v) != o || in_.must_keep[at(v)] || base_.keep[at(v)]) continue;
          const bool crosses = s + 1 < segments_.size() && std::find(segments_[s + 1].crossing.begin(), segments_[s + 1].crossing.end(), v) != segments_[s + 1].crossing.end();
          const bool keep = crosses || (k == 0 ? in_.saved[at(v)] != 0 : k <= trades.size() && trades[k - 1].keep[at(v)] != 0);
          if (keep) option.keep.push_back(v), kept += in_.bytes[at(v)];
        }
      }
      option.kept = slots(kept);
      option.needs = std::max(slots(levels[s]), option.kept);
      const bool known = std::any_of(segment.options.begin(), segment.options.end(), [&](const Option& x) { return x.kept <= option.kept && x.needs <= option.needs && x.seconds <= option.seconds; });
      if (!known) segment.options.push_back(std::move(option));
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
    for (int32_t m = held; m < kSlots; m++) offer(m, again + static_cast<double>(best(k, t, m - held).seconds) + static_cast<double>(best(s, k - 1, m).seconds), -1, k);
  }
}

// Depth 0 runs in the forward itself: what it holds is kept. A range at depth d > 0 runs in one Group, which retains what has memo kLevels - 1 - d up to
// the range's end: there lies a checkpoint of depth d - 1, whose cut is one level higher.
void Segments::follow(int32_t s, int32_t t, int32_t m, int32_t depth, Choice& choice) const {
  const auto level = static_cast<uint8_t>(std::max(1, Choice::kLevels - 1 - depth));
  const auto hold = [&](const std::vector<int32_t>& values) {
    for (int32_t v : values) {   // a checkpoint is saved inside the range before it too: the outer level counts
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
