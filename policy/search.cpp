#include "policy/search.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <span>

namespace reprise {
namespace {

constexpr double kWarm = 0.004;

size_t at(int32_t i) { return static_cast<size_t>(i); }

double clock_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t default_prices(const Instance& in) {
  const int64_t size = int64_t{3} * in.values() + 4 * int64_t{in.ops()} + 2 * int64_t{in.time.cells} + 100;
  return std::clamp<int64_t>(220'000'000 / size, 1500, 150000);
}

}  // namespace

Search::Search(const Instance& in, const std::vector<Block>& blocks, const SearchOptions& options)
    : in_(in), options_(options), pricer_(in), now_(in), best_(in), base_(in) {
  if (options_.prices <= 0) options_.prices = static_cast<int64_t>(options_.effort * static_cast<double>(default_prices(in)));
  rate_ = std::max(1e-9, std::accumulate(in.seconds.begin(), in.seconds.end(), 0.0));
  find_candidates();
  find_families(blocks);
  make_starts(blocks);
}

void Search::find_candidates() {
  std::vector<uint8_t> used(at(in_.values()));
  for (int32_t v : in_.read) used[at(v)] = 1;
  const auto small = static_cast<int64_t>(options_.small_share * static_cast<double>(in_.time.plain_peak));
  candidate_.resize(used.size());
  for (int32_t v = 0; v < in_.values(); v++) {
    const bool tiny = in_.bytes[at(v)] < small;
    candidate_[at(v)] = !in_.must_keep[at(v)] && !tiny && (in_.saved[at(v)] || used[at(v)]);
    if (candidate_[at(v)]) candidates_.push_back(v);
    base_.pack[at(v)] = candidate_[at(v)] && in_.packed_bytes[at(v)] > 0;
  }
  for (int32_t v = 0; v < in_.values(); v++) {
    if (candidate_[at(v)] || !in_.saved[at(v)]) continue;
    const int32_t of = larger_beside(v);
    if (of < 0) base_.keep[at(v)] = 1;
    else followers_.push_back({v, of});
  }
}

// Of those that the same Ops make, -1: none.
int32_t Search::larger_beside(int32_t v) const {
  const auto makers = [&](int32_t u) {
    return std::span(in_.maker).subspan(size_t(in_.maker_at[at(u)]), size_t(in_.maker_at[at(u) + 1] - in_.maker_at[at(u)]));
  };
  if (in_.must_keep[at(v)] || makers(v).empty()) return -1;
  const int32_t op = in_.last_maker(v);
  for (int32_t k = in_.made_at[at(op)]; k < in_.made_at[at(op) + 1]; k++) {
    const int32_t u = in_.made[at(k)];
    if (candidate_[at(u)] && in_.saved[at(u)] && std::ranges::equal(makers(u), makers(v))) return u;
  }
  return -1;
}

void Search::follow(Choice& c) const {
  for (const Follower& f : followers_) c.keep[at(f.value)] = c.keep[at(f.of)], c.memo[at(f.value)] = c.memo[at(f.of)];
}

void Search::find_families(const std::vector<Block>& blocks) {
  std::vector<std::pair<int32_t, int32_t>> place(at(in_.ops()));  // family of Blocks, position in it
  for (int32_t o = 0; o < in_.ops(); o++) place[at(o)] = {-1, o};
  for (const Block& b : blocks)
    for (int32_t o = b.first_op; o <= b.last_op; o++) place[at(o)] = {b.family, o - b.first_op};
  std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>> cuts;
  std::map<std::array<int32_t, 3>, std::vector<int32_t>> keeps, packs, memos;
  for (int32_t o = 0; o < in_.ops(); o++) {
    const auto [kind, position] = place[at(o)];
    if (o > 0) cuts[place[at(o)]].push_back(o);
    for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++) {
      const int32_t v = in_.made[at(k)];
      if (in_.last_maker(v) != o || !candidate_[at(v)]) continue;
      const std::array<int32_t, 3> key = {kind, position, k - in_.made_at[at(o)]};
      keeps[key].push_back(v);
      if (base_.pack[at(v)]) packs[key].push_back(v);
      if (in_.saved[at(v)]) memos[key].push_back(v);
    }
  }
  for (auto& [_, list] : keeps) families_.push_back({kKeep, list});
  for (auto& [_, list] : packs) families_.push_back({kPack, list});
  for (auto& [_, list] : memos) families_.push_back({kMemo, list});
  for (auto& [_, list] : cuts) cuts_.push_back({kCut, list});
}

void Search::price(int64_t limit) {
  follow(now_);
  pricer_.price(now_, limit);
  prices_ += 1 + pricer_.operations() / std::max(1, in_.ops());  // what runs much again takes longer to price
  remember(limit);
}

// The best that fits by seconds, or until one fits the one that needs least.
void Search::remember(int64_t limit) {
  const bool fits = pricer_.peak_bytes() <= limit;
  const bool better = fits ? !best_fits_ || pricer_.seconds() < best_seconds_ - 1e-12 : !best_fits_ && pricer_.peak_bytes() < best_peak_;
  if (!better) return;
  best_ = now_;
  best_fits_ = fits;
  best_seconds_ = pricer_.seconds();
  best_peak_ = pricer_.peak_bytes();
}

bool Search::spent() const { return prices_ >= until_ || (prices_ % 64 == 0 && clock_seconds() > deadline_); }

// Every step-th member from `from` on: kept or not, memoised or not, cut or not.
Search::Move Search::toggle(const Family& f, size_t from, size_t step) {
  Move move;
  for (size_t i = from; i < f.members.size(); i += step) move.push_back({f.side, f.members[i], static_cast<uint8_t>(slot(f.side, f.members[i]) == 0)});
  return move;
}

std::vector<Search::Move> Search::repair_moves(bool single) {
  std::vector<Move> out;
  for (const auto* list : {&families_, &cuts_})
    for (const Family& f : *list) {
      const size_t n = f.members.size();
      if (single)
        for (size_t i = 0; i < n; i++) out.push_back(toggle({f.side, {f.members[i]}}, 0, 1));
      else out.push_back(toggle(f, 0, 1));
      if (single || f.side != kKeep) continue;
      for (size_t k : {2U, 3U, 4U, 6U, 8U})
        for (size_t s = 0; s < k && n >= 2 * k; s++) out.push_back(toggle(f, s, k));
    }
  return out;
}

// The move with most excess removed per second added, until the Choice fits.
bool Search::repair(int64_t limit, bool single) {
  price(limit);
  while (pricer_.excess_bytes() > 0 && !spent()) {
    const double seconds = pricer_.seconds(), excess = static_cast<double>(pricer_.excess_bytes());
    double best = 0;
    std::vector<Move> moves = repair_moves(single);
    Move* which = nullptr;
    for (Move& move : moves) {
      if (spent()) break;
      apply(move);
      price(limit);
      apply(move);
      const double ratio = (excess - static_cast<double>(pricer_.excess_bytes())) / std::max(pricer_.seconds() - seconds, 1e-4 * rate_);
      if (ratio > best) best = ratio, which = &move;
    }
    if (which) apply(*which);
    price(limit);
    if (!which) break;
  }
  return pricer_.excess_bytes() <= 0;
}

// As many members as fit, from the first or from the last Block: kept, or memoised through all cuts.
void Search::fill_family(const Family& f, bool from_end, int64_t limit) {
  Move off;
  const uint8_t most = full(f.side);
  for (int32_t i : f.members)
    if (slot(f.side, i) < most) off.push_back({f.side, i, slot(f.side, i)});
  if (off.empty()) return;
  if (from_end) std::reverse(off.begin(), off.end());
  price(limit);
  const double before = pricer_.seconds();
  const auto set = [&](size_t n) {
    for (size_t k = 0; k < off.size(); k++) slot(f.side, off[k].index) = k < n ? most : off[k].value;
  };
  size_t low = 0, high = off.size();
  while (low < high && !spent()) {
    const size_t middle = (low + high + 1) / 2;
    set(middle);
    price(limit);
    if (pricer_.peak_bytes() <= limit) low = middle;
    else high = middle - 1;
  }
  set(low);
  price(limit);
  if (pricer_.peak_bytes() > limit || pricer_.seconds() >= before) set(0);
}

// Give bytes back: family by family, best seconds per byte first.
void Search::fill(int64_t limit) {
  price(limit);
  if (pricer_.peak_bytes() > limit) return;
  const double seconds = pricer_.seconds();
  std::vector<std::pair<double, size_t>> order;
  for (size_t f = 0; f < families_.size() && !spent(); f++) {
    const Choice before = now_;
    double bytes = 1;
    for (int32_t i : families_[f].members) {
      uint8_t& x = slot(families_[f].side, i);
      const uint8_t most = full(families_[f].side);
      if (x < most) bytes += static_cast<double>(families_[f].side == kPack ? in_.packed_bytes[at(i)] : in_.bytes[at(i)]), x = most;
    }
    price(limit);
    now_ = before;
    if (pricer_.seconds() < seconds) order.push_back({(pricer_.seconds() - seconds) / bytes, f});
  }
  std::sort(order.begin(), order.end());
  for (const auto& [_, f] : order)
    for (bool from_end : {false, true})
      if (!spent()) fill_family(families_[f], from_end, limit);
  price(limit);
}

double Search::cost(int64_t limit) const {
  const double price = 8 * rate_ / std::max(1.0, static_cast<double>(in_.time.plain_peak));
  return pricer_.seconds() + price * static_cast<double>(std::max<int64_t>(0, pricer_.peak_bytes() - limit)) +
         0.02 * price * static_cast<double>(pricer_.excess_bytes());
}

// What one Block keeps (or memoises), a near Block does instead.
Search::Move Search::shift() {
  const Family& f = families_[rng_() % families_.size()];
  const auto n = static_cast<int64_t>(f.members.size()), i = static_cast<int64_t>(rng_() % f.members.size());
  const int64_t j = std::clamp<int64_t>(i + static_cast<int64_t>(rng_() % 7) - 3, 0, n - 1);
  const int32_t a = f.members[static_cast<size_t>(i)], b = f.members[static_cast<size_t>(j)];
  if (slot(f.side, a) == slot(f.side, b)) return {};
  return {{f.side, a, slot(f.side, b)}, {f.side, b, slot(f.side, a)}};
}

// One that is not kept for one that is.
Search::Move Search::exchange() {
  const int32_t a = candidates_[rng_() % candidates_.size()];
  for (int tries = 0; tries < 8; tries++) {
    const int32_t b = candidates_[rng_() % candidates_.size()];
    if (now_.keep[at(a)] != now_.keep[at(b)]) return {{kKeep, a, now_.keep[at(b)]}, {kKeep, b, now_.keep[at(a)]}};
  }
  return {};
}

// The same, and a third makes up for what they differ in bytes.
Search::Move Search::exchange_three() {
  Move move = exchange();
  const int32_t c = candidates_[rng_() % candidates_.size()];
  if (std::none_of(move.begin(), move.end(), [c](const Change& x) { return x.index == c; }))
    move.push_back({kKeep, c, static_cast<uint8_t>(now_.keep[at(c)] ^ 1)});
  return move;
}

// Another memo or cut level, for one place or for the places of all Blocks from one on.
Search::Move Search::relevel() {
  const auto& list = rng_() % 2 ? families_ : cuts_;
  if (list.empty()) return {};
  const Family& f = list[rng_() % list.size()];
  const uint64_t draw = rng_() % 8;
  const auto value = static_cast<uint8_t>(full(f.side) == 1 ? draw % 2 : draw < 3 ? 0 : draw < 5 ? 1 : draw < 7 ? 2 : 4);
  const size_t n = f.members.size(), from = rng_() % n, end = rng_() % 4 ? from + 1 : n;
  Move move;
  for (size_t i = from; i < end; i++)
    if (slot(f.side, f.members[i]) != value) move.push_back({f.side, f.members[i], value});
  return move;
}

Search::Move Search::random_move() {
  if (candidates_.empty() || families_.empty()) return {};
  const uint64_t kind = rng_() % 100;
  if (kind < 25) return shift();
  if (kind < 45) return exchange();
  if (kind < 50) return exchange_three();
  if (kind < 75) return relevel();
  const int32_t v = candidates_[rng_() % candidates_.size()];
  Move m = {{kKeep, v, static_cast<uint8_t>(now_.keep[at(v)] ^ 1)}};
  if (kind < 90)
    if (Move second = relevel(); second.size() == 1 && !(second[0].side == kKeep && second[0].index == v)) m.push_back(second[0]);
  return m;
}

// hot_share: of the forward's seconds; at first a Choice slower by so much is taken one time in three.
void Search::anneal(int64_t limit, int64_t steps, double hot_share) {
  price(limit);
  double current = cost(limit);
  const double hot = hot_share * rate_;
  for (int64_t s = 0; s < steps && !spent(); s++) {
    Move move = random_move();
    if (move.empty()) continue;
    const double temperature = hot * std::pow(1e-3, static_cast<double>(s) / static_cast<double>(steps));
    apply(move);
    price(limit);
    const double next = cost(limit), draw = static_cast<double>(rng_() >> 11) * 0x1p-53;
    if (next <= current || draw < std::exp((current - next) / temperature)) current = next;
    else apply(move);
  }
}

// Those that fit by seconds, those that do not by seconds and bytes over, and the one that needs least.
std::vector<Choice> Search::promising(const std::vector<Choice>& more, int64_t limit) {
  std::vector<Start> pool = starts_;
  for (const Choice& c : more) {
    now_ = c;
    price(limit);
    pool.push_back({c, pricer_.seconds(), pricer_.peak_bytes()});
  }
  const double scale = 4 * rate_ / std::max(1.0, static_cast<double>(in_.time.plain_peak));
  const auto over = [&](const Start& s) { return static_cast<double>(std::max<int64_t>(0, s.peak - limit)); };
  const auto best = [&](size_t count, auto&& wanted, auto&& rank, std::vector<Choice>& out) {
    std::vector<const Start*> list;
    for (const Start& s : pool)
      if (wanted(s)) list.push_back(&s);
    std::stable_sort(list.begin(), list.end(), [&](const Start* a, const Start* b) { return rank(*a) < rank(*b); });
    for (const Start* s : list) {
      if (count == 0) break;
      if (std::find(out.begin(), out.end(), s->choice) == out.end()) out.push_back(s->choice), count--;
    }
  };
  std::vector<Choice> out;
  best(
      4, [&](const Start& s) { return s.peak <= limit; }, [](const Start& s) { return s.seconds; }, out);
  best(
      out.empty() ? 5 : 3, [&](const Start& s) { return s.peak > limit; }, [&](const Start& s) { return s.seconds + scale * over(s); }, out);
  best(
      out.size() < 4 ? 3 : 1, [&](const Start&) { return true; }, [&](const Start& s) { return static_cast<double>(s.peak); }, out);
  return out;
}

// From where now_ is, within so many prices: fit, then give back.
void Search::improve(int64_t limit, int64_t prices) {
  until_ = prices_ + prices;
  if (!repair(limit, false)) repair(limit, true);
  fill(limit);
  price(limit);
}

Found Search::run(int64_t limit, const std::vector<Choice>& more_starts, double share) {
  const auto budget = static_cast<int64_t>(share * static_cast<double>(options_.prices));
  prices_ = 0;
  best_fits_ = false;
  best_peak_ = INT64_MAX;
  rng_.seed(1);
  deadline_ = clock_seconds() + options_.guard_seconds;
  until_ = INT64_MAX;
  now_ = starts_.front().choice;
  price(limit);
  if (best_fits_) return {best_, true, false, best_seconds_, best_peak_, prices_};
  std::vector<std::pair<double, Choice>> found;
  const std::vector<Choice> starts = promising(more_starts, limit);
  for (size_t k = 0; k < starts.size(); k++) {
    now_ = starts[k];
    improve(limit, (budget / 2 - prices_) / static_cast<int64_t>(starts.size() - k));
    found.push_back({cost(limit), now_});
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t k = 0, tries = std::min<size_t>(2, found.size()); k < tries; k++) {
    const int64_t part = (budget - prices_) / static_cast<int64_t>(tries - k);
    now_ = found[k].second;
    until_ = prices_ + part * 9 / 10;
    anneal(limit, part * 9 / 10, k == 0 ? kWarm : std::max(kWarm, 1.0 / std::max(1, in_.ops())));  // where Ops are few each weighs much
    now_ = best_;
    until_ = prices_ + part / 10;
    fill(limit);
  }
  return {best_, best_fits_, clock_seconds() > deadline_, best_seconds_, best_peak_, prices_};
}

}  // namespace reprise
