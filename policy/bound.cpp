#include "policy/bound.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace reprise {
namespace {
size_t at(int32_t i) { return static_cast<size_t>(i); }
}  // namespace

Bound::Bound(const Instance& in, int32_t most_moments) : in_(in), most_moments_(most_moments), cut_(0) {
  find_first_unpacks();
  fix_levels();
}

void Bound::find_first_unpacks() {
  first_unpack_.assign(at(in_.values()), in_.time.cells);
  for (size_t i = in_.time.unpacks.size(); i-- > 0;) first_unpack_[at(in_.time.unpacks[i].value)] = in_.time.unpacks[i].cell;
}

bool Bound::is_charged(int32_t v, int32_t cell) const {
  if (in_.must_keep[at(v)] || cell < in_.time.gone[at(v)] || cell < in_.time.birth[at(v)]) return false;
  return !in_.saved[at(v)] || cell < first_unpack_[at(v)] || cell >= in_.time.last_release[at(v)];
}

// Every schedule has the program's own, Values that the program holds, those between their first unpack and their release, and what must be kept.
void Bound::fix_levels() {
  std::vector<int64_t> change(at(in_.time.cells) + 1);
  for (int32_t v = 0; v < in_.values(); v++) {
    const auto add = [&](int32_t from, int32_t end) {
      if (from < end) change[at(from)] += in_.bytes[at(v)], change[at(end)] -= in_.bytes[at(v)];
    };
    const int32_t gone = in_.time.gone[at(v)], released = std::min(in_.time.cells, in_.time.last_release[at(v)]);
    add(in_.time.birth[at(v)], gone);
    if (in_.saved[at(v)]) add(in_.must_keep[at(v)] ? gone : std::max(gone, first_unpack_[at(v)]), released);
  }
  int64_t live = 0;
  for (int32_t c = 0; c < in_.time.cells; c++) fixed_.push_back((live += change[at(c)]) + in_.time.base_max[at(c)]);
  for (const Timeline::Unpack& u : in_.time.unpacks) fixed_[at(u.cell)] += in_.time.base_start[at(u.cell)] - in_.time.base_max[at(u.cell)];
}

// With no moment so far all that is saved counts as kept. Sources that nobody saved are left out: how long they are needed depends on the schedule.
int32_t Bound::worst_cell() const {
  std::vector<int64_t> change(at(in_.time.cells) + 1);
  for (int32_t v = 0; v < in_.values(); v++) {
    if (in_.must_keep[at(v)] || !in_.saved[at(v)] || !(moments_.empty() || held_[at(v)] != kNot)) continue;
    const int64_t bytes = !moments_.empty() && held_[at(v)] == kPacked ? in_.packed_bytes[at(v)] : in_.bytes[at(v)];
    const int32_t from = in_.time.gone[at(v)], to = std::min(first_unpack_[at(v)], in_.time.last_release[at(v)]);
    if (from < to) change[at(from)] += bytes, change[at(to)] -= bytes;
  }
  int32_t worst = 0;
  int64_t live = 0, most = INT64_MIN;
  for (int32_t c = 0; c < in_.time.cells; c++)
    if ((live += change[at(c)]) + fixed_[at(c)] > most) most = live + fixed_[at(c)], worst = c;
  return worst;
}

// Prices of the other moments stay.
bool Bound::add_moment() {
  const int32_t cell = worst_cell();
  const auto place = std::lower_bound(moments_.begin(), moments_.end(), cell);
  if (place != moments_.end() && *place == cell) return false;
  price_.insert(price_.begin() + (place - moments_.begin()), 0);
  moments_.insert(place, cell);
  build();
  return true;
}

// Nodes: source (needed, runs again), sink; per moment one an Op and two a Value (it is needed; it is made again).
void Bound::build() {
  const int32_t each = in_.ops() + 2 * in_.values(), count = static_cast<int32_t>(moments_.size());
  cut_ = MinCut(2 + count * each);
  holds_.clear();
  scale_ = 0x1p50 / std::max(std::accumulate(in_.seconds.begin(), in_.seconds.end(), 0.0) + in_.overhead_seconds * in_.ops(), 1e-9);
  for (int32_t o = 0; o < in_.ops(); o++) {
    cut_.edge(2 + o, kSink, static_cast<int64_t>(scale_ * (in_.seconds[at(o)] + in_.overhead_seconds)));
    for (int32_t m = 1; m < count; m++) cut_.edge(2 + m * each + o, 2 + (m - 1) * each + o, MinCut::kInfinite);
  }
  for (int32_t m = 0; m < count; m++) build_moment(m);
  level_.assign(moments_.size(), 0);
  held_.assign(at(in_.values()), kNot);
}

void Bound::build_moment(int32_t m) {
  const int32_t cell = moments_[at(m)], first = 2 + m * (in_.ops() + 2 * in_.values());
  const auto needed = [&](int32_t v) { return first + in_.ops() + 2 * v; };
  for (int32_t o = 0; o < in_.ops(); o++)
    for (int32_t k = in_.read_at[at(o)]; k < in_.read_at[at(o) + 1]; k++)
      if (is_charged(in_.read[at(k)], cell)) cut_.edge(first + o, needed(in_.read[at(k)]), MinCut::kInfinite);
  for (int32_t v = 0; v < in_.values(); v++) {
    if (!is_charged(v, cell)) continue;
    if (cell < first_unpack_[at(v)] && first_unpack_[at(v)] < in_.time.cells) cut_.edge(kSource, needed(v), MinCut::kInfinite);
    holds_.push_back({v, m, cut_.edge(needed(v), needed(v) + 1, 0), needed(v), false});
    for (int32_t k = in_.maker_at[at(v)]; k < in_.maker_at[at(v) + 1]; k++) cut_.edge(needed(v) + 1, first + in_.maker[at(k)], MinCut::kInfinite);
  }
}

int64_t Bound::price_hold(Hold& h) const {
  const auto bytes = [&](int64_t n) { return static_cast<double>(n) * price_[at(h.moment)]; };
  double seconds = bytes(in_.bytes[at(h.value)]);
  h.packed = false;
  if (in_.packed_bytes[at(h.value)] > 0) {
    const double again = in_.pack_seconds[at(h.value)] + in_.unpack_seconds[at(h.value)] + in_.overhead_seconds;
    const double packed = bytes(in_.packed_bytes[at(h.value)]) + again / static_cast<double>(moments_.size());
    if (packed < seconds) seconds = packed, h.packed = true;
  }
  return static_cast<int64_t>(std::min(scale_ * seconds, 0x1p52));
}

double Bound::evaluate(int64_t limit) {
  double constant = 0;
  for (size_t m = 0; m < moments_.size(); m++) {
    level_[m] = fixed_[at(moments_[m])];
    constant += price_[m] * static_cast<double>(level_[m] - limit);
  }
  for (Hold& h : holds_) cut_.set_capacity(h.edge, price_hold(h));
  const auto flow = static_cast<double>(cut_.solve(kSource, kSink));
  std::fill(held_.begin(), held_.end(), kNot);
  for (const Hold& h : holds_) {
    if (!cut_.source_side(h.needed) || cut_.source_side(h.needed + 1)) continue;
    level_[at(h.moment)] += h.packed ? in_.packed_bytes[at(h.value)] : in_.bytes[at(h.value)];
    if (h.moment == 0 || !is_charged(h.value, moments_[at(h.moment) - 1])) held_[at(h.value)] = h.packed ? kPacked : kKept;
  }
  return flow / scale_ + constant;
}

void Bound::note(double value, int64_t limit, Answer& answer) {
  answer.seconds = std::max(answer.seconds, value);
  const double slope = std::accumulate(price_.begin(), price_.end(), 0.0);
  lines_.push_back({value + slope * static_cast<double>(limit), -slope});
  const int64_t peak = *std::max_element(level_.begin(), level_.end());
  if (std::abs(static_cast<double>(peak - limit)) > 0.15 * static_cast<double>(limit)) return;
  Choice c(in_);
  for (int32_t v = 0; v < in_.values(); v++) {
    c.keep[at(v)] |= held_[at(v)] == kKept;
    c.pack[at(v)] = held_[at(v)] != kNot && in_.packed_bytes[at(v)] > 0;  // should the search not keep it after all
    c.memo[at(v)] = in_.saved[at(v)];
  }
  if (std::find(answer.choices.begin(), answer.choices.end(), c) == answer.choices.end()) answer.choices.push_back(std::move(c));
}

// One moment's price alone: the lines through the two cuts on either side of the limit meet at a new cut, or at no lower one: then this is the best price.
void Bound::raise_alone(int32_t m, int64_t limit, Answer& answer) {
  const auto line = [&](double price) {
    price_[at(m)] = price;
    const double value = evaluate(limit);
    note(value, limit, answer);
    return Line{value - price * static_cast<double>(level_[at(m)] - limit), static_cast<double>(level_[at(m)] - limit)};
  };
  Line low = line(0);
  if (low.slope <= 0) return;
  double top = 1e-3 / low.slope * std::accumulate(in_.seconds.begin(), in_.seconds.end(), 0.0);
  Line high = line(top);
  for (int i = 0; i < 40 && high.slope > 0; i++) low = high, high = line(top *= 4);
  for (int i = 0; i < 40 && high.slope <= 0; i++) {
    const double meet = (high.start - low.start) / (low.slope - high.slope);
    const Line next = line(meet);
    if (next.slope == low.slope || next.slope == high.slope) return;
    (next.slope > 0 ? low : high) = next;
  }
}

// Subgradient steps of Polyak's length from where the prices are; ends at the best prices seen. Returns their value.
double Bound::climb(int64_t limit, double target, int32_t cuts, Answer& answer) {
  double step = 1.0, reached = -1e300;
  std::vector<double> best = price_;
  for (int32_t i = 0, late = 0; i < cuts && step > 0.01; i++) {
    const double value = evaluate(limit);
    note(value, limit, answer);
    if (value > reached + 1e-12) late = 0, reached = value, best = price_;
    else if (++late >= 4) late = 0, step *= 0.5, price_ = best, evaluate(limit);
    double norm = 0;
    for (size_t m = 0; m < price_.size(); m++)
      if (price_[m] > 0 || level_[m] > limit) norm += std::pow(static_cast<double>(level_[m] - limit), 2);
    if (norm <= 0) break;
    const double length = step * (std::max(target, 1.03 * std::max(0.0, reached)) - value) / norm;
    for (size_t m = 0; m < price_.size(); m++) price_[m] = std::max(0.0, price_[m] + length * static_cast<double>(level_[m] - limit));
  }
  price_ = best;
  evaluate(limit);
  return reached;
}

std::vector<Bound::Trade> Bound::trades(int32_t count) {
  double low = 1e300, high = 0;
  for (int32_t v = 0; v < in_.values(); v++) {
    if (in_.must_keep[at(v)] || !in_.saved[at(v)] || in_.bytes[at(v)] == 0 || in_.last_maker(v) < 0) continue;
    const double each = (in_.seconds[at(in_.last_maker(v))] + in_.overhead_seconds) / static_cast<double>(in_.bytes[at(v)]);
    low = std::min(low, each), high = std::max(high, each);
  }
  moments_.clear();
  price_.clear();
  std::vector<Trade> out;
  if (high <= 0 || !add_moment()) return out;
  for (int32_t k = 0; k < count; k++) {
    price_[0] = 0.5 * low * std::pow(8 * high / low, static_cast<double>(k) / std::max(1, count - 1));
    evaluate(0);
    Trade t{std::vector<uint8_t>(at(in_.values())), std::vector<uint8_t>(at(in_.ops()))};
    for (int32_t v = 0; v < in_.values(); v++) t.keep[at(v)] = held_[at(v)] == kKept;
    for (int32_t o = 0; o < in_.ops(); o++) t.again[at(o)] = cut_.source_side(2 + o);
    if (out.empty() || out.back().keep != t.keep) out.push_back(std::move(t));
  }
  return out;
}

Bound::Answer Bound::run(int64_t limit, double target, int32_t cuts) {
  Answer answer;
  moments_.clear();
  price_.clear();
  while (static_cast<int32_t>(moments_.size()) < most_moments_ && add_moment()) {
    if (moments_.size() == 1) raise_alone(0, limit, answer);
    climb(limit, target, cuts / 5, answer);
  }
  climb(limit, target, cuts, answer);
  answer.seconds = at_least(limit);
  return answer;
}

Bound::Answer Bound::run_next(int64_t limit, double target, int32_t cuts) {
  if (moments_.empty()) return run(limit, target);
  Answer answer;
  climb(limit, target, cuts, answer);
  if (static_cast<int32_t>(moments_.size()) < most_moments_ && add_moment()) climb(limit, target, cuts, answer);
  answer.seconds = at_least(limit);
  return answer;
}

double Bound::at_least(int64_t limit) const {
  double most = 0;
  for (const Line& l : lines_) most = std::max(most, l.start + l.slope * static_cast<double>(limit));
  return most * (1 - 1e-9);
}

}  // namespace reprise
