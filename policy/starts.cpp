#include <algorithm>
#include <set>

#include "policy/search.hpp"
#include "policy/segments.hpp"

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

// Saved bytes made before each Op: where "equal parts" are.
std::vector<int64_t> saved_before(const Instance& in) {
  std::vector<int64_t> out(at(in.ops()) + 1);
  for (int32_t v = 0; v < in.values(); v++)
    if (in.saved[at(v)] && in.last_maker(v) >= 0) out[at(in.last_maker(v)) + 1] += in.bytes[at(v)];
  for (size_t o = 1; o < out.size(); o++) out[o] += out[o - 1];
  return out;
}

std::vector<int32_t> even(const std::vector<int32_t>& places, const std::vector<int64_t>& before, size_t parts) {
  if (parts > places.size()) return places;
  std::set<int32_t> out;
  for (size_t j = 1; j < parts; j++) {
    const int64_t wanted = before.back() / static_cast<int64_t>(parts) * static_cast<int64_t>(j);
    const auto distance = [&](int32_t o) { return std::abs(before[at(o)] - wanted); };
    out.insert(*std::min_element(places.begin(), places.end(), [&](int32_t a, int32_t b) { return distance(a) < distance(b); }));
  }
  return {out.begin(), out.end()};
}

}  // namespace

void Search::add_start(const std::vector<int32_t>& kept, const std::vector<int32_t>& memoised) {
  Choice c = base_;
  for (int32_t o : kept) {
    c.cut[at(o)] = 1;
    for (int32_t v : crossing_values(*in_.profile, o))
      if (candidate_[at(v)]) c.keep[at(v)] = 1;
  }
  for (int32_t o : memoised) {
    c.cut[at(o)] = 1;
    for (int32_t v : crossing_values(*in_.profile, o))
      if (candidate_[at(v)] && in_.saved[at(v)]) c.memo[at(v)] = 1;
  }
  offer(std::move(c));
}

void Search::offer(Choice c) {
  follow(c);
  if (std::any_of(starts_.begin(), starts_.end(), [&](const Start& s) { return s.choice == c; })) return;
  pricer_.price(c, kNoLimit);
  starts_.push_back({std::move(c), pricer_.seconds(), pricer_.peak_bytes()});
}

// All kept; then C segments of equal saved bytes whose borders are kept, each in D / C parts whose borders are memoised.
void Search::make_starts(const std::vector<Block>& blocks) {
  Choice all = base_;
  for (int32_t v = 0; v < in_.values(); v++) all.keep[at(v)] |= in_.saved[at(v)];
  offer(all);
  const auto borders = block_borders(*in_.profile, blocks), good = block_borders(*in_.profile, {});
  const auto before = saved_before(in_);
  const size_t n = borders.size();
  std::set<size_t> outer = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, std::max<size_t>(1, n / 2), std::max<size_t>(1, n / 3), n + 1};
  for (size_t c : outer) {
    if (c > n + 1) continue;
    const auto kept = even(borders, before, c);
    for (size_t d : std::set<size_t>{c, 2 * c, 4 * c, n + 1}) {
      if (d < c) continue;
      add_start(kept, d > c ? even(borders, before, d) : std::vector<int32_t>{});
    }
    add_start(kept, good);
    Choice bare = starts_.back().choice;  // without memos: least bytes, most work
    std::fill(bare.memo.begin(), bare.memo.end(), 0);
    offer(std::move(bare));
  }
  propose(block_borders(*in_.profile, blocks));
  propose(good);
}

// Nested checkpoints over the chain of stretches, for every amount of memory.
void Search::propose(const std::vector<int32_t>& borders) {
  const auto trades = Bound(in_).trades(16);
  Choice c = base_;
  for (int64_t most : {in_.time.plain_peak * 5 / 4, in_.time.plain_peak * 2 / 5}) {
    const Segments segments(in_, borders, trades, base_, most);
    for (int64_t bytes = most; bytes > 0; bytes -= segments.slot_bytes())
      if (segments.propose(bytes, c)) offer(c);
  }
}

std::vector<Choice> Search::lowest(size_t count) const {
  std::vector<const Start*> order;
  for (const Start& s : starts_) order.push_back(&s);
  std::stable_sort(order.begin(), order.end(), [](const Start* a, const Start* b) { return a->peak < b->peak; });
  std::vector<Choice> out;
  for (size_t i = 0; i < std::min(count, order.size()); i++) out.push_back(order[i]->choice);
  return out;
}

}  // namespace reprise
