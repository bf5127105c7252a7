#include "policy/placement_search.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace reprise {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kNodesOfARound = 1000;
constexpr double kFading = 0.95, kJitter = 0.6;

size_t at(int32_t i) { return static_cast<size_t>(i); }

// 1, 1, 2, 1, 1, 2, 4, …: short runs often, long ones sometimes.
int64_t luby(int64_t i) {
  int64_t power = 1;
  while (power < i + 1) power *= 2;
  return power == i + 1 ? power / 2 : luby(i - power / 2 + 1);
}

}  // namespace

CapacitySearch::CapacitySearch(std::vector<Lifetime> items, int64_t capacity_bytes) : items_(std::move(items)), capacity_(capacity_bytes) {
  cut_into_sections();
  failures_.resize(at(sections_));
  lowest_.resize(at(sections_));
  rank_.resize(items_.size());
  neighbours_.resize(items_.size());
  for (size_t a = 0; a < items_.size(); a++)
    for (size_t b = 0; b < items_.size(); b++)
      if (a != b && first_[a] < last_[b] && first_[b] < last_[a]) neighbours_[a].push_back(static_cast<int32_t>(b));
  restart();
  for (size_t i = 0; i < items_.size(); i++) load_.push_back(*std::max_element(to_place_.begin() + first_[i], to_place_.begin() + last_[i]));
}

// A section ends with a death that follows a birth.
void CapacitySearch::cut_into_sections() {
  std::vector<int64_t> births, deaths, starts;
  for (const Lifetime& i : items_) births.push_back(i.birth), deaths.push_back(i.death);
  std::sort(births.begin(), births.end());
  std::sort(deaths.begin(), deaths.end());
  bool born = false;
  for (size_t b = 0, d = 0; d < deaths.size();) {
    if (b < births.size() && births[b] < deaths[d]) {
      born = true;
      b++;
      continue;
    }
    if (born) starts.push_back(births[b - 1]);
    born = false;
    d++;
  }
  sections_ = static_cast<int32_t>(starts.size());
  const auto section = [&](int64_t time) { return static_cast<int32_t>(std::lower_bound(starts.begin(), starts.end(), time) - starts.begin()); };
  for (const Lifetime& i : items_) first_.push_back(section(i.birth)), last_.push_back(section(i.death));
}

double CapacitySearch::random() {
  state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<double>(state_ >> 33) / static_cast<double>(uint64_t{1} << 31);
}

// By area or width, by the load around them first or not, shaken, and drawn to where earlier rounds failed.
void CapacitySearch::rank_anew(int round) {
  const double preference = round / 4 % 3;  // for what stood where earlier rounds failed
  const bool by_load = round % 4 >= 2, by_area = round % 2 == 0;
  std::vector<double> drawn(items_.size());
  double most = 1e-9;
  for (size_t i = 0; i < items_.size(); i++) {
    for (int32_t s = first_[i]; s < last_[i]; s++) drawn[i] += failures_[at(s)];
    most = std::max(most, drawn[i]);
  }
  std::vector<std::pair<double, size_t>> keys;
  for (size_t i = 0; i < items_.size(); i++) {
    const double width = static_cast<double>(items_[i].death - items_[i].birth);
    double key = width * (by_area ? static_cast<double>(items_[i].bytes) : 1.0);
    if (round >= 4) key *= 1 + kJitter * (2 * random() - 1);
    if (by_load) key += 1e15 * static_cast<double>(load_[i]);
    if (round >= 4) key *= 1 + preference * drawn[i] / most;
    keys.emplace_back(-key, i);
  }
  std::sort(keys.begin(), keys.end());
  for (size_t r = 0; r < keys.size(); r++) rank_[keys[r].second] = static_cast<int32_t>(r);
  for (double& f : failures_) f *= kFading;
}

void CapacitySearch::restart() {
  floor_.assign(items_.size(), 0);
  offset_.assign(items_.size(), -1);
  to_place_.assign(at(sections_), 0);
  trail_.clear();
  for (size_t i = 0; i < items_.size(); i++)
    for (int32_t s = first_[i]; s < last_[i]; s++) to_place_[at(s)] += items_[i].bytes;
}

std::optional<std::vector<int64_t>> CapacitySearch::run(int64_t looks) {
  Group all(items_.size());
  std::iota(all.begin(), all.end(), 0);
  std::sort(all.begin(), all.end(), [&](int32_t a, int32_t b) { return first_[at(a)] < first_[at(b)]; });
  for (int round = 0; looks_ < looks; round++) {
    rank_anew(round);
    restart();
    nodes_left_ = kNodesOfARound * luby(round / 4 + 1) * (1 + round / 32);
    looks_end_ = looks;
    const std::vector<Group> parts = split(all, -1);
    if (std::all_of(parts.begin(), parts.end(), [&](const Group& part) { return solve(part, -1, -1); })) return offset_;
  }
  return std::nullopt;
}

int64_t CapacitySearch::lifted(int32_t item, int64_t level) const {
  int64_t least = kMost;
  for (int32_t n : neighbours_[at(item)])
    if (offset_[at(n)] < 0) least = std::min(least, std::max(floor_[at(n)], level) + items_[at(n)].bytes);
  return least;
}

std::optional<int64_t> CapacitySearch::slack(const Group& group, int64_t level, int32_t last_rank) {
  int32_t first = sections_, last = 0;
  for (int32_t i : group) first = std::min(first, first_[at(i)]), last = std::max(last, last_[at(i)]);
  std::fill(lowest_.begin() + first, lowest_.begin() + last, capacity_);
  for (int32_t i : group) {
    const bool passed_over = floor_[at(i)] < level || (floor_[at(i)] == level && rank_[at(i)] <= last_rank);
    const int64_t low = passed_over ? lifted(i, level) : floor_[at(i)];
    const int32_t begin = first_[at(i)], end = last_[at(i)];
    looks_ += end - begin + (passed_over ? static_cast<int64_t>(neighbours_[at(i)].size()) : 0);
    if (low > capacity_ - items_[at(i)].bytes) {
      for (int32_t s = begin; s < end; s++) failures_[at(s)] += 1.0 / (end - begin);
      return std::nullopt;
    }
    for (int32_t s = begin; s < end; s++) lowest_[at(s)] = std::min(lowest_[at(s)], low);
  }
  int64_t least = kMost;
  for (int32_t s = first; s < last; s++) {
    if (to_place_[at(s)] == 0) continue;
    least = std::min(least, capacity_ - lowest_[at(s)] - to_place_[at(s)]);
    if (least >= 0) continue;
    failures_[at(s)] += 1;
    return std::nullopt;
  }
  return least;
}

bool CapacitySearch::solve(const Group& group, int64_t level, int32_t last_rank) {
  looks_ += static_cast<int64_t>(group.size());
  if (--nodes_left_ < 0 || looks_ > looks_end_) return false;
  int64_t lowest_end = kMost;
  for (int32_t i : group) lowest_end = std::min(lowest_end, floor_[at(i)] + items_[at(i)].bytes);
  if (lowest_end <= level || !slack(group, level, last_rank)) return false;
  Group candidates;
  for (int32_t i : group) {
    const int64_t floor = floor_[at(i)];
    if (floor < lowest_end && (floor > level || (floor == level && rank_[at(i)] > last_rank))) candidates.push_back(i);
  }
  std::sort(candidates.begin(), candidates.end(),
            [&](int32_t a, int32_t b) { return floor_[at(a)] != floor_[at(b)] ? floor_[at(a)] < floor_[at(b)] : rank_[at(a)] < rank_[at(b)]; });
  for (int32_t i : candidates) {
    const size_t mark = trail_.size();
    put(i);
    if (solve_rest(group, i)) return true;
    rewind(mark);
    take_back(i);
    if (nodes_left_ < 0 || looks_ > looks_end_) return false;
  }
  return false;
}

std::vector<CapacitySearch::Group> CapacitySearch::split(const Group& group, int32_t without) const {
  std::vector<Group> parts;
  int32_t end = -1;
  for (int32_t i : group) {
    if (i == without) continue;
    if (first_[at(i)] >= end) parts.emplace_back();
    parts.back().push_back(i);
    end = std::max(end, last_[at(i)]);
  }
  return parts;
}

bool CapacitySearch::solve_rest(const Group& group, int32_t placed) {
  const int64_t level = offset_[at(placed)];
  const int32_t rank = rank_[at(placed)];
  std::vector<Group> parts = split(group, placed);
  if (parts.empty()) return true;
  if (parts.size() == 1) return solve(parts[0], level, rank);
  std::vector<std::pair<int64_t, size_t>> by_slack;
  for (size_t p = 0; p < parts.size(); p++) {
    const auto room = slack(parts[p], level, rank);
    if (!room) return false;
    by_slack.emplace_back(*room, p);
  }
  std::sort(by_slack.begin(), by_slack.end());
  for (size_t p = 0; p < by_slack.size(); p++) {
    if (solve(parts[by_slack[p].second], level, rank)) continue;
    for (size_t done = 0; done < p; done++)
      for (int32_t i : parts[by_slack[done].second]) take_back(i);
    return false;  // the caller rewinds the floors
  }
  return true;
}

void CapacitySearch::put(int32_t item) {
  offset_[at(item)] = floor_[at(item)];
  const int64_t end = floor_[at(item)] + items_[at(item)].bytes;
  for (int32_t s = first_[at(item)]; s < last_[at(item)]; s++) to_place_[at(s)] -= items_[at(item)].bytes;
  for (int32_t n : neighbours_[at(item)]) {
    if (offset_[at(n)] >= 0 || floor_[at(n)] >= end) continue;
    trail_.emplace_back(n, floor_[at(n)]);
    floor_[at(n)] = end;
  }
}

void CapacitySearch::take_back(int32_t item) {
  offset_[at(item)] = -1;
  for (int32_t s = first_[at(item)]; s < last_[at(item)]; s++) to_place_[at(s)] += items_[at(item)].bytes;
}

void CapacitySearch::rewind(size_t mark) {
  while (trail_.size() > mark) {
    floor_[at(trail_.back().first)] = trail_.back().second;
    trail_.pop_back();
  }
}

}  // namespace reprise
