#include "policy/placement.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "policy/placement_search.hpp"

namespace reprise {
namespace {

constexpr size_t kMostSearched = 1000;  // allocations; a node of the search looks at all of them
constexpr int kMostRounds = 200;

using Order = std::vector<size_t>;

struct Event {
  int64_t time;
  bool birth;  // deaths come first
  size_t item;
  bool operator<(const Event& other) const { return std::tie(time, birth, item) < std::tie(other.time, other.birth, other.item); }
};

std::vector<Event> events_of(const std::vector<Lifetime>& items) {
  std::vector<Event> events;
  for (size_t i = 0; i < items.size(); i++) {
    events.push_back({items[i].birth, true, i});
    events.push_back({items[i].death, false, i});
  }
  std::sort(events.begin(), events.end());
  return events;
}

// One allocation after the other into the lowest gap that is free for its whole life, or the tightest one.
class Greedy {
 public:
  explicit Greedy(const std::vector<Lifetime>& items) : items_(items) {}

  void run(const Order& order, bool tightest) {
    placed_.clear();
    offsets.assign(items_.size(), 0);
    total = 0;
    for (size_t i : order) put(i, gap_for(items_[i], tightest));
  }

  std::vector<int64_t> offsets;
  int64_t total = 0;
  int64_t looks = 0;

 private:
  struct Placed {
    int64_t offset, end, birth, death;
  };

  int64_t gap_for(const Lifetime& item, bool tightest) {
    int64_t reach = 0, found = -1, smallest = std::numeric_limits<int64_t>::max();
    size_t seen = 0;
    for (; seen < placed_.size() && (tightest || found < 0); seen++) {
      const Placed& p = placed_[seen];
      if (p.death <= item.birth || p.birth >= item.death) continue;
      const int64_t gap = p.offset - reach;
      if (gap >= item.bytes && gap < smallest) found = reach, smallest = gap;
      reach = std::max(reach, p.end);
    }
    looks += static_cast<int64_t>(seen);
    return found < 0 ? reach : found;
  }

  void put(size_t i, int64_t offset) {
    const Placed fresh{offset, offset + items_[i].bytes, items_[i].birth, items_[i].death};
    offsets[i] = offset;
    total = std::max(total, fresh.end);
    placed_.insert(std::upper_bound(placed_.begin(), placed_.end(), fresh, [](const Placed& a, const Placed& b) { return a.offset < b.offset; }), fresh);
  }

  const std::vector<Lifetime>& items_;
  std::vector<Placed> placed_;  // by offset
};

std::vector<Order> orders_of(const std::vector<Lifetime>& items) {
  const auto bytes = [&](size_t i) { return static_cast<double>(items[i].bytes); };
  const auto life = [&](size_t i) { return static_cast<double>(items[i].death - items[i].birth); };
  std::vector<Order> orders;
  const auto add = [&](auto&& first, auto&& then) {
    Order order(items.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::pair(first(a), then(a)) > std::pair(first(b), then(b)); });
    orders.push_back(std::move(order));
  };
  add(bytes, life);
  add([&](size_t i) { return bytes(i) * std::sqrt(life(i)); }, life);
  add([&](size_t i) { return bytes(i) * life(i); }, life);
  add(life, bytes);
  // Of equal sizes the earliest first: the layers of a network ask for the same sizes in turn, and neighbours in time become neighbours in place. By life, which
  // differs between layers for reasons of no importance, they are scattered.
  add(bytes, [&](size_t i) { return -static_cast<double>(items[i].birth); });
  add([&](size_t i) { return -static_cast<double>(items[i].birth); }, life);
  return orders;
}

class Placer {
 public:
  Placer(const std::vector<Lifetime>& items, const PlacementOptions& options, int64_t peak)
      : items_(items), options_(options), enough_(std::max(options.enough_bytes, peak)), greedy_(items) {
    best_.peak_bytes = peak;
    best_.total_bytes = std::numeric_limits<int64_t>::max();
  }

  Placement run() {
    for (const Order& order : orders_of(items_))
      for (const bool tightest : {false, true})
        if (!done()) attempt(order, tightest);
    improve();
    if (!done() && items_.size() <= kMostSearched) search();
    return std::move(best_);
  }

 private:
  bool done() const { return best_.total_bytes <= enough_; }

  void attempt(const Order& order, bool tightest) {
    greedy_.run(order, tightest);
    if (greedy_.total >= best_.total_bytes) return;
    best_.total_bytes = greedy_.total;
    best_.offsets = greedy_.offsets;
    order_ = order;
    tightest_ = tightest;
  }

  // What ends above three quarters of the excess comes in half as far down the order.
  void improve() {
    const int64_t until = greedy_.looks + options_.looks / 4;
    Order order = order_;
    greedy_.offsets = best_.offsets;
    for (int round = 0; round < kMostRounds && !done() && greedy_.looks < until; round++) {
      const int64_t target = std::max(enough_, best_.total_bytes - (best_.total_bytes - enough_) / 4 - 1);
      std::vector<std::pair<double, size_t>> places;
      for (size_t p = 0; p < order.size(); p++) {
        const size_t i = order[p];
        const bool too_high = greedy_.offsets[i] + items_[i].bytes > target;
        places.emplace_back(static_cast<double>(p) * (too_high ? 0.5 : 1.0), i);
      }
      std::stable_sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t p = 0; p < order.size(); p++) order[p] = places[p].second;
      attempt(order, tightest_ && round % 2 == 1);
    }
  }

  void search() {
    if (auto found = CapacitySearch(items_, enough_).run(options_.looks / 4 * 3)) {
      best_.offsets = std::move(*found);
      best_.total_bytes = 0;
      for (size_t i = 0; i < items_.size(); i++) best_.total_bytes = std::max(best_.total_bytes, best_.offsets[i] + items_[i].bytes);
    }
  }

  const std::vector<Lifetime>& items_;
  const PlacementOptions options_;
  const int64_t enough_;
  Greedy greedy_;
  Placement best_;
  Order order_;
  bool tightest_ = false;
};

int64_t rounded(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

int64_t peak_bytes(const std::vector<Lifetime>& lifetimes, int64_t alignment) {
  int64_t live = 0, peak = 0;
  for (const Event& e : events_of(lifetimes)) {
    live += rounded(lifetimes[e.item].bytes, alignment) * (e.birth ? 1 : -1);
    peak = std::max(peak, live);
  }
  return peak;
}

Placement place(const std::vector<Lifetime>& lifetimes, const PlacementOptions& options) {
  if (options.alignment <= 0 || (options.alignment & (options.alignment - 1)) != 0)
    throw std::invalid_argument("place: alignment is " + std::to_string(options.alignment) + ", must be a power of two");
  std::vector<Lifetime> items;
  std::vector<size_t> places;  // of the items that need bytes at some time
  for (size_t i = 0; i < lifetimes.size(); i++) {
    const Lifetime& l = lifetimes[i];
    if (l.bytes < 0 || l.death < l.birth)
      throw std::invalid_argument("place: allocation " + std::to_string(i) + " has " + std::to_string(l.bytes) + " bytes over [" + std::to_string(l.birth) +
                                  ", " + std::to_string(l.death) + ")");
    if (l.bytes == 0 || l.death == l.birth) continue;
    items.push_back({rounded(l.bytes, options.alignment), l.birth, l.death});
    places.push_back(i);
  }
  if (items.empty()) return {std::vector<int64_t>(lifetimes.size()), 0, 0};
  Placement dense = Placer(items, options, peak_bytes(items)).run();
  Placement out{std::vector<int64_t>(lifetimes.size()), dense.total_bytes, dense.peak_bytes};
  for (size_t i = 0; i < places.size(); i++) out.offsets[places[i]] = dense.offsets[i];
  return out;
}

std::string check_placement(const std::vector<Lifetime>& lifetimes, const Placement& placement, int64_t alignment) {
  if (placement.offsets.size() != lifetimes.size()) return "L1: as many offsets as allocations are needed";
  std::map<int64_t, size_t> live;  // by offset
  const auto end = [&](size_t i) { return placement.offsets[i] + lifetimes[i].bytes; };
  for (const Event& e : events_of(lifetimes)) {
    const size_t i = e.item;
    const int64_t offset = placement.offsets[i];
    if (lifetimes[i].bytes == 0 || lifetimes[i].birth == lifetimes[i].death) continue;
    if (!e.birth) {
      live.erase(offset);
      continue;
    }
    const std::string name = "allocation " + std::to_string(i);
    if (offset < 0 || offset % alignment != 0 || end(i) > placement.total_bytes) return "L2: " + name + " lies at " + std::to_string(offset);
    const auto next = live.lower_bound(offset);
    if (next != live.end() && next->first < end(i)) return "L1: " + name + " overlaps allocation " + std::to_string(next->second);
    if (next != live.begin() && end(std::prev(next)->second) > offset) return "L1: " + name + " overlaps allocation " + std::to_string(std::prev(next)->second);
    live.emplace(offset, i);
  }
  return {};
}

}  // namespace reprise
