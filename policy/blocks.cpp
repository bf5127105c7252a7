#include "policy/blocks.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

struct Run {
  int32_t first = 0, length = 0, period = 0;
};

// Works on all Ops but casts of what came from outside the Pass: autocast casts a weight once and reads it many times, so a first Block would be unlike the others.
class BlockFinder {
 public:
  explicit BlockFinder(const Profile& p) : p_(p) {
    std::unordered_map<std::string, int32_t> names;
    std::unordered_map<uint64_t, int32_t> signatures;
    for (size_t i = 0; i < p.ops().size(); i++) {
      const ProfileOp& o = p.ops()[i];
      if (o.reads.empty() && o.name == "aten::_to_copy") continue;
      index_.push_back(static_cast<int32_t>(i));
      exact_.push_back(signatures.emplace(o.signature, static_cast<int32_t>(signatures.size())).first->second);
      loose_.push_back(names.emplace(o.name, static_cast<int32_t>(names.size())).first->second);
    }
    n_ = static_cast<int32_t>(index_.size());
    std::vector<int64_t> cross = crossing_bytes(p);
    for (const ProfileValue& v : p.values())  // a border never falls into an in-place chain
      for (int32_t o = v.makers.empty() ? 0 : v.makers.front() + 1; !v.makers.empty() && o <= v.makers.back(); o++) cross[at(o)] += v.bytes;
    for (int32_t o = 0; o <= n_; o++) cross_.push_back(cross[at(begin(o))]);
  }

  std::vector<Block> find() {
    runs(exact_, 0, n_);
    for_each_gap([&](int32_t a, int32_t b) { known(a, b); });
    between();
    for_each_gap([&](int32_t a, int32_t b) { runs(loose_, a, b); });
    std::sort(blocks_.begin(), blocks_.end(), [](const Block& a, const Block& b) { return a.first_op < b.first_op; });
    for (Block& b : blocks_) b.first_op = begin(b.first_op), b.last_op = index_[at(b.last_op)];
    return std::move(blocks_);
  }

 private:
  // From here to the end positions count in index_; a border lies right after the Op before it.
  int32_t begin(int32_t o) const { return o == 0 ? 0 : index_[at(o - 1)] + 1; }
  const ProfileOp& op(int32_t o) const { return p_.ops()[at(index_[at(o)])]; }

  std::vector<int32_t> pattern(int32_t first, int32_t last) const { return {loose_.begin() + first, loose_.begin() + last + 1}; }

  void add(int32_t first, int32_t last) {
    const auto family = families_.emplace(pattern(first, last), static_cast<int32_t>(families_.size())).first->second;
    blocks_.push_back({first, last, family});
  }

  template <class Visit>
  void for_each_gap(Visit&& visit) {
    std::sort(blocks_.begin(), blocks_.end(), [](const Block& a, const Block& b) { return a.first_op < b.first_op; });
    std::vector<std::pair<int32_t, int32_t>> gaps;
    int32_t from = 0;
    for (const Block& b : blocks_) {
      if (b.first_op > from) gaps.push_back({from, b.first_op});
      from = b.last_op + 1;
    }
    if (from < n_) gaps.push_back({from, n_});
    for (auto [a, b] : gaps) visit(a, b);
  }

  bool reads_from(int32_t first, int32_t count, int32_t made_first, int32_t made_end) const {
    for (int32_t o = first; o < first + count; o++)
      for (int32_t v : op(o).reads) {
        const auto& makers = p_.values()[at(v)].makers;
        if (!makers.empty() && makers.back() >= begin(made_first) && makers.back() < begin(made_end)) return true;
      }
    return false;
  }

  bool chained(int32_t first, int32_t period, int32_t count) const {
    for (int32_t k = 1; k < count; k++)
      if (!reads_from(first + k * period, period, first + (k - 1) * period, first + k * period)) return false;
    return true;
  }

  // A Block multiplies matrices or convolves, if anything in the model does: two products by a scalar at its end are none.
  bool worth(int32_t first, int32_t period) const {
    for (int32_t o = first; o < first + period; o++)
      if (op(o).flops > 0 || (!multiplies_ && op(o).rise_bytes > 0)) return true;
    return false;
  }

  int64_t flops(int32_t first, int32_t end) const {
    int64_t sum = 0;
    for (int32_t o = first; o < end; o++) sum += op(o).flops;
    return sum;
  }

  // The run's phase with the narrowest borders, as many whole periods as there are; of equals the one that leaves most in one piece.
  int32_t phase(const Run& r) const {
    const int32_t count = r.length / r.period, spare = r.length % r.period;
    int32_t best = r.first;
    std::pair<int64_t, int32_t> least = {INT64_MAX, 0};
    for (int32_t s = r.first; s <= r.first + spare; s++) {
      int64_t sum = 0;
      for (int32_t k = 0; k <= count; k++) sum += cross_[at(s + k * r.period)];
      const std::pair<int64_t, int32_t> score = {sum, -std::max(s - r.first, r.first + spare - s)};
      if (score < least) least = score, best = s;
    }
    return best;
  }

  // The longest run of equal tokens at distance p in [a, b); a longer period must cover clearly more.
  Run longest_run(const std::vector<int32_t>& token, int32_t a, int32_t b) const {
    Run best;
    for (int32_t p = 1; p <= (b - a) / 2; p++)
      for (int32_t i = a; i + p < b;) {
        int32_t j = i;
        while (j + p < b && token[at(j)] == token[at(j + p)]) j++;
        const int32_t length = j - i + p;
        if (j - i >= p && length > best.length + best.length / 50) {
          const Run r{i, length, p};
          if (chained(phase(r), p, length / p) && worth(i, p)) best = r;
        }
        i = j + 1;
      }
    return best;
  }

  void runs(const std::vector<int32_t>& token, int32_t a, int32_t b) {
    const Run r = longest_run(token, a, b);
    if (r.length == 0) return;
    int32_t first = phase(r), end = first + r.length / r.period * r.period;
    for (int32_t o = first; o < end; o += r.period) add(o, o + r.period - 1);
    const auto nearly_one = [&](int32_t ops) { return 4 * ops >= 3 * r.period; };  // a first or last layer that lacks an Op or two
    const int32_t head = first - r.first, tail = r.first + r.length - end;
    // A Pass begins with the first tensor that is saved: what a first layer did to its input before that was not seen.
    const bool begins_here = r.first == 0 && 2 * head > r.period && multiplies_ && flops(r.first, first) == flops(first, first + r.period);
    if (begins_here || nearly_one(head)) add(r.first, first - 1), first = r.first;
    if (nearly_one(tail)) add(end, end + tail - 1), end += tail;
    runs(token, a, first);
    runs(token, end, b);
  }

  // Stretches that equal a known family but for their shapes; long families first, no family of one or two Ops.
  void known(int32_t a, int32_t b) {
    for (const auto& [text, _] : by_length()) {
      const auto m = static_cast<int32_t>(text.size());
      if (m < 3) continue;
      for (int32_t s = a; s + m <= b; s++) {
        if (!std::equal(text.begin(), text.end(), loose_.begin() + s) || !narrow(s, s + m)) continue;
        add(s, s + m - 1);
        known(a, s);
        return known(s + m, b);
      }
    }
  }

  std::vector<std::pair<std::vector<int32_t>, int32_t>> by_length() const {
    std::vector<std::pair<std::vector<int32_t>, int32_t>> out(families_.begin(), families_.end());
    std::stable_sort(out.begin(), out.end(), [](const auto& x, const auto& y) { return x.first.size() > y.first.size(); });
    return out;
  }

  // Neither border is wider than the place next to it inside.
  bool narrow(int32_t first, int32_t end) const {
    return (first == 0 || cross_[at(first)] <= cross_[at(first + 1)]) && (end >= n_ || cross_[at(end)] <= cross_[at(end - 1)]);
  }

  // What stands between two Blocks and occurs more than once is a Block of its own family (a stage's first unit).
  void between() {
    std::vector<std::pair<int32_t, int32_t>> gaps;
    for_each_gap([&](int32_t a, int32_t b) { gaps.push_back({a, b}); });
    std::vector<std::vector<int32_t>> candidates;
    for (auto [a, b] : gaps)
      if (a > 0 && b < n_ && b - a >= 3 && worth(a, b - a)) candidates.push_back(pattern(a, b - 1));
    std::sort(candidates.begin(), candidates.end(), [](const auto& x, const auto& y) { return x.size() > y.size(); });
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    for (const auto& text : candidates) {
      std::vector<int32_t> found;
      const auto m = static_cast<int32_t>(text.size());
      for (auto [a, b] : gaps)
        for (int32_t s = a; s + m <= b; s++)
          if (std::equal(text.begin(), text.end(), loose_.begin() + s) && free_of_blocks(s, s + m)) found.push_back(s), s += m - 1;
      if (found.size() > 1)
        for (int32_t s : found) add(s, s + m - 1);
    }
  }

  bool free_of_blocks(int32_t a, int32_t b) const {
    return std::none_of(blocks_.begin(), blocks_.end(), [&](const Block& x) { return x.first_op < b && a <= x.last_op; });
  }

  const Profile& p_;
  int32_t n_ = 0;
  std::vector<int32_t> index_;  // the Ops looked at
  bool multiplies_ = p_.flops() > 0;
  std::vector<int64_t> cross_;
  std::vector<int32_t> exact_, loose_;
  std::map<std::vector<int32_t>, int32_t> families_;
  std::vector<Block> blocks_;
};

std::vector<int32_t> last_readers(const Profile& p) {
  std::vector<int32_t> last(p.values().size(), -1);
  for (size_t v = 0; v < last.size(); v++)
    if (!p.values()[v].makers.empty()) last[v] = p.values()[v].makers.back();
  for (size_t o = 0; o < p.ops().size(); o++)
    for (int32_t v : p.ops()[o].reads) last[at(v)] = std::max(last[at(v)], static_cast<int32_t>(o));
  return last;
}

}  // namespace

std::vector<Block> find_blocks(const Profile& profile) { return BlockFinder(profile).find(); }

std::vector<int64_t> crossing_bytes(const Profile& p) {
  std::vector<int64_t> change(p.ops().size() + 2);
  const auto last = last_readers(p);
  for (size_t v = 0; v < last.size(); v++) {
    if (p.values()[v].makers.empty()) continue;
    change[at(p.values()[v].makers.front()) + 1] += p.values()[v].bytes;
    change[at(last[v]) + 1] -= p.values()[v].bytes;
  }
  for (size_t o = 1; o < change.size(); o++) change[o] += change[o - 1];
  change.pop_back();
  return change;
}

std::vector<int32_t> crossing_values(const Profile& p, int32_t op) {
  std::vector<int32_t> out;
  const auto last = last_readers(p);
  for (size_t v = 0; v < last.size(); v++)
    if (!p.values()[v].makers.empty() && p.values()[v].makers.front() < op && last[v] >= op) out.push_back(static_cast<int32_t>(v));
  return out;
}

std::vector<int32_t> block_borders(const Profile& p, const std::vector<Block>& blocks) {
  std::vector<int32_t> out;
  const auto n = static_cast<int32_t>(p.ops().size());
  if (blocks.size() >= 2) {
    for (size_t i = 0; i < blocks.size(); i++) {
      if (blocks[i].first_op > 0) out.push_back(blocks[i].first_op);
      if (blocks[i].last_op + 1 < n) out.push_back(blocks[i].last_op + 1);
    }
  } else {
    const auto cross = crossing_bytes(p);
    for (int32_t o = 1; o < n; o++)
      if (cross[at(o)] <= cross[at(o - 1)] && cross[at(o)] <= cross[at(o + 1)]) out.push_back(o);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace reprise
