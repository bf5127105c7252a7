#include "policy/search.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

double clock_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t default_prices(const Instance& in) {
  const int64_t size = int64_t{3} * in.values() + 4 * int64_t{in.ops()} + 2 * int64_t{in.time.cells} + 100;
  return std::clamp<int64_t>(220'000'000 / size, 1500, 150000);
}

}  // namespace

Search::Search(const Instance& in, const std::vector<Block>& blocks, const SearchOptions& options)
    : in_(in), options_(options), pricer_(in), now_(in), best_(in), base_(in) {
  if (options_.prices <= 0) options_.prices = default_prices(in);
  rate_ = std::max(1e-9, std::accumulate(in.seconds.begin(), in.seconds.end(), 0.0));
  find_candidates();
  make_moves(blocks);
  make_starts(blocks);
}

void Search::find_candidates() {
  std::vector<uint8_t> used(at(in_.values()));
  for (int32_t v : in_.read) used[at(v)] = 1;
  const auto small = static_cast<int64_t>(options_.small_share * static_cast<double>(in_.time.plain_peak));
  candidate_.resize(used.size());
  for (int32_t v = 0; v < in_.values(); v++) {
    const bool tiny = in_.bytes[at(v)] < small;
    if (tiny && in_.saved[at(v)]) base_.keep[at(v)] = 1;
    candidate_[at(v)] = !in_.must_keep[at(v)] && !tiny && (in_.saved[at(v)] || used[at(v)]);
  }
}

void Search::make_moves(const std::vector<Block>& blocks) {
  std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>> by_place, cuts;   // (family, place) -> Values, Ops
  std::vector<std::pair<int32_t, int32_t>> place(at(in_.ops()));
  for (int32_t o = 0; o < in_.ops(); o++) place[at(o)] = {-1, o};
  for (const Block& b : blocks) for (int32_t o = b.first_op; o <= b.last_op; o++) place[at(o)] = {b.family, o - b.first_op};
  for (int32_t o = 0; o < in_.ops(); o++) {
    if (o > 0) cuts[place[at(o)]].push_back(o);
    int32_t output = 0;
    for (int32_t k = in_.made_at[at(o)]; k < in_.made_at[at(o) + 1]; k++) {
      const int32_t v = in_.made[at(k)];
      if (in_.last_maker(v) == o && candidate_[at(v)]) by_place[{place[at(o)].first, place[at(o)].second * 64 + output}].push_back(v);
      output++;
    }
  }
  std::vector<Move> single;
  const auto both = [&](const std::vector<int32_t>& list, uint8_t side) {
    Move all;
    for (int32_t i : list) all.push_back({side, i}), single.push_back({{side, i}});
    if (all.size() > 1) moves_.push_back(all);
  };
  for (const auto& [_, family] : by_place) {
    families_.push_back(family);
    both(family, 0);
    std::vector<int32_t> saved;
    for (int32_t v : family) if (in_.saved[at(v)]) saved.push_back(v);
    both(saved, 1);
    for (size_t k : {2U, 3U, 4U, 6U, 8U})
      for (size_t s = 0; s < k && family.size() >= 2 * k; s++) {
        Move every;
        for (size_t i = s; i < family.size(); i += k) every.push_back({0, family[i]});
        moves_.push_back(every);
      }
  }
  for (const auto& [_, list] : cuts) both(list, 2);
  family_moves_ = moves_.size();
  moves_.insert(moves_.end(), single.begin(), single.end());
}

void Search::flip(const Move& move) {
  for (auto [side, i] : move) (side == 0 ? now_.keep : side == 1 ? now_.memo : now_.cut)[at(i)] ^= 1;
}

void Search::price(int64_t limit) {
  prices_++;
  pricer_.price(now_, limit);
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

// The move with most excess removed per second added, until the Choice fits.
bool Search::repair(int64_t limit, size_t moves) {
  price(limit);
  while (pricer_.excess_bytes() > 0 && !spent()) {
    const double seconds = pricer_.seconds(), excess = static_cast<double>(pricer_.excess_bytes());
    double best = 0;
    const Move* which = nullptr;
    for (size_t m = 0; m < moves && !spent(); m++) {
      flip(moves_[m]);
      price(limit);
      flip(moves_[m]);
      const double ratio = (excess - static_cast<double>(pricer_.excess_bytes())) / std::max(pricer_.seconds() - seconds, 1e-7);
      if (ratio > best) best = ratio, which = &moves_[m];
    }
    if (which) flip(*which);
    price(limit);
    if (!which) return pricer_.excess_bytes() <= 0;
  }
  return pricer_.excess_bytes() <= 0;
}

void Search::fill_family(const std::vector<int32_t>& family, bool from_end, int64_t limit) {
  std::vector<int32_t> off;
  for (int32_t v : family) if (!now_.keep[at(v)]) off.push_back(v);
  if (from_end) std::reverse(off.begin(), off.end());
  price(limit);
  const double before = pricer_.seconds();
  const auto set = [&](size_t n) { for (size_t k = 0; k < off.size(); k++) now_.keep[at(off[k])] = k < n; };
  size_t low = 0, high = off.size();
  while (low < high) {
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

// Give bytes back: family by family, best seconds per byte first, keep as many as fit, from the first or from the last Block.
void Search::fill(int64_t limit) {
  price(limit);
  if (pricer_.peak_bytes() > limit) return;
  const double seconds = pricer_.seconds();
  std::vector<std::pair<double, size_t>> order;
  for (size_t f = 0; f < families_.size() && !spent(); f++) {
    const Choice before = now_;
    double bytes = 0;
    for (int32_t v : families_[f]) if (!now_.keep[at(v)]) bytes += static_cast<double>(in_.bytes[at(v)]), now_.keep[at(v)] = 1;
    price(limit);
    now_ = before;
    if (pricer_.seconds() < seconds) order.push_back({(pricer_.seconds() - seconds) / std::max(bytes, 1.0), f});
  }
  std::sort(order.begin(), order.end());
  for (const auto& [_, f] : order)
    for (bool from_end : {false, true}) if (!spent()) fill_family(families_[f], from_end, limit);
  price(limit);
}

double Search::cost(int64_t limit) const {
  const double price = 8 * rate_ / std::max(1.0, static_cast<double>(in_.time.plain_peak));
  return pricer_.seconds() + price * static_cast<double>(std::max<int64_t>(0, pricer_.peak_bytes() - limit)) + 0.02 * price * static_cast<double>(pricer_.excess_bytes());
}

// One or two moves, or a shift: what one Block keeps (or memoises), a near Block does instead.
Search::Move Search::random_move() {
  const uint64_t kind = rng_() % 100;
  if (kind < 35 && !families_.empty()) {
    const auto& family = families_[rng_() % families_.size()];
    const auto n = static_cast<int64_t>(family.size()), i = static_cast<int64_t>(rng_() % family.size());
    const int64_t j = std::clamp<int64_t>(i + static_cast<int64_t>(rng_() % 7) - 3, 0, n - 1);
    const uint8_t side = rng_() % 10 < 7 ? 0 : 1;
    const auto& list = side == 0 ? now_.keep : now_.memo;
    const int32_t a = family[static_cast<size_t>(i)], b = family[static_cast<size_t>(j)];
    if (list[at(a)] == list[at(b)]) return {};
    return {{side, a}, {side, b}};
  }
  if (moves_.empty()) return {};
  Move m = moves_[rng_() % moves_.size()];
  if (kind < 75) {
    const Move& second = moves_[rng_() % moves_.size()];
    m.insert(m.end(), second.begin(), second.end());
  }
  return m;
}

void Search::anneal(int64_t limit, int64_t steps) {
  price(limit);
  double current = cost(limit);
  const double hot = 0.004 * rate_;
  for (int64_t s = 0; s < steps && !spent(); s++) {
    const Move move = random_move();
    if (move.empty()) continue;
    const double temperature = hot * std::pow(1e-3, static_cast<double>(s) / static_cast<double>(steps));
    flip(move);
    price(limit);
    const double next = cost(limit), draw = static_cast<double>(rng_() >> 11) * 0x1p-53;
    if (next <= current || draw < std::exp((current - next) / temperature)) current = next;
    else flip(move);
  }
}

std::vector<Choice> Search::promising(const std::vector<Choice>& starts, int64_t limit) {
  std::vector<std::pair<double, size_t>> rank, low;
  const double scale = 4 * rate_ / std::max(1.0, static_cast<double>(in_.time.plain_peak));
  for (size_t k = 0; k < starts.size(); k++) {
    now_ = starts[k];
    price(limit);
    const auto peak = static_cast<double>(pricer_.peak_bytes());
    rank.push_back({pricer_.seconds() + scale * std::max(0.0, peak - static_cast<double>(limit)), k});
    low.push_back({peak + 1e-3 * static_cast<double>(in_.time.plain_peak) * pricer_.seconds() / rate_, k});
  }
  std::sort(rank.begin(), rank.end());
  std::sort(low.begin(), low.end());
  std::vector<size_t> taken;
  const auto take = [&](const auto& list, size_t n) {
    for (size_t k = 0, added = 0; k < list.size() && added < n; k++)
      if (std::find(taken.begin(), taken.end(), list[k].second) == taken.end()) taken.push_back(list[k].second), added++;
  };
  take(rank, 8);
  take(low, 5);
  std::vector<Choice> out;
  for (size_t k : taken) out.push_back(starts[k]);
  return out;
}

Found Search::run(int64_t limit, const std::vector<Choice>& more_starts, int64_t divide_prices) {
  const int64_t budget = options_.prices / std::max<int64_t>(1, divide_prices);
  prices_ = 0;
  best_fits_ = false;
  best_peak_ = INT64_MAX;
  rng_.seed(1);
  deadline_ = clock_seconds() + options_.guard_seconds;
  until_ = INT64_MAX;
  std::vector<Choice> all = starts_;
  all.insert(all.end(), more_starts.begin(), more_starts.end());
  std::vector<Priced> found;
  if (limit < in_.time.plain_peak) {
    const std::vector<Choice> starts = promising(all, limit);
    for (size_t k = 0; k < starts.size(); k++) {
      until_ = prices_ + (budget / 2 - prices_) / static_cast<int64_t>(starts.size() - k);
      now_ = starts[k];
      if (!repair(limit, family_moves_)) repair(limit, moves_.size());
      fill(limit);
      price(limit);
      found.push_back({cost(limit), now_});
    }
    std::sort(found.begin(), found.end(), [](const Priced& a, const Priced& b) { return a.score < b.score; });
    for (size_t k = 0, tries = std::min<size_t>(3, found.size()); k < tries; k++) {
      const int64_t share = (budget - prices_) / static_cast<int64_t>(tries - k);
      now_ = found[k].choice;
      until_ = prices_ + share * 9 / 10;
      anneal(limit, share * 9 / 10);
      now_ = best_;
      until_ = prices_ + share / 10;
      fill(limit);
    }
  } else {
    now_ = starts_.front();
    price(limit);
  }
  return {best_, best_fits_, clock_seconds() > deadline_, best_seconds_, best_peak_, prices_};
}

}  // namespace reprise
