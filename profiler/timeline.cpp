#include "profiler/timeline.hpp"

#include <algorithm>

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

// Per Op: Values that can be packed once it has run.
std::vector<std::vector<int32_t>> packable_after(const Profile& p) {
  std::vector<std::vector<int32_t>> out(p.ops().size());
  for (size_t v = 0; v < p.values().size(); v++)
    if (p.values()[v].packed.form != Packing::kNone) out[at(p.values()[v].makers.back())].push_back(static_cast<int32_t>(v));
  return out;
}

bool opens_cell(const Step& s, const Profile& p, const std::vector<std::vector<int32_t>>& packable) {
  switch (s.kind) {
    case StepKind::kMake:
    case StepKind::kGone:
    case StepKind::kRelease: return p.values()[at(s.id)].bytes > 0 || p.values()[at(s.id)].saved;
    case StepKind::kUnpack:
    case StepKind::kForwardEnd: return true;
    case StepKind::kOpEnd: return !packable[at(s.id)].empty();
    default: return false;
  }
}

void fill_base(Timeline& t, const Profile& profile, const std::vector<std::vector<int32_t>>& packable, std::vector<int32_t>& cell_of_step) {
  const auto& data = profile.data();
  int64_t level = 0;
  t.base_start = {0};
  t.base_max = {0};
  const auto open = [&] {
    t.base_start.push_back(level);
    t.base_max.push_back(level);
  };
  for (size_t i = 0; i < data.steps.size(); i++) {
    const Step& s = data.steps[i];
    if (opens_cell(s, profile, packable)) open();
    cell_of_step[i] = static_cast<int32_t>(t.base_start.size()) - 1;
    if (s.kind == StepKind::kUnpack) open();
    if (s.kind == StepKind::kAllocate) level += data.buffers[at(s.id)];
    if (s.kind == StepKind::kFree) level -= data.buffers[at(s.id)];
    t.base_max.back() = std::max(t.base_max.back(), level);
  }
  t.cells = static_cast<int32_t>(t.base_start.size());
}

int64_t plain_peak(const Timeline& t, const Profile& profile) {
  std::vector<int64_t> change(at(t.cells) + 1);
  for (size_t v = 0; v < profile.values().size(); v++) {
    const ProfileValue& value = profile.values()[v];
    const int32_t end = value.saved ? std::max(t.gone[v], t.last_release[v]) : t.gone[v];
    change[at(t.birth[v])] += value.bytes;
    change[at(end)] -= value.bytes;
  }
  int64_t live = 0, peak = 0;
  for (int32_t c = 0; c < t.cells; c++) {
    live += change[at(c)];
    peak = std::max(peak, live + t.base_max[at(c)]);
  }
  return peak;
}

}  // namespace

Timeline Timeline::of(const Profile& profile) {
  Timeline t;
  const size_t n = profile.values().size();
  std::vector<int32_t> cell(profile.steps().size());
  const auto packable = packable_after(profile);
  fill_base(t, profile, packable, cell);
  t.birth.assign(n, 0);
  t.gone.assign(n, t.cells);
  t.packed_from.assign(n, -1);
  t.last_unpack.assign(n, -1);
  t.last_release.assign(n, -1);
  t.forward_end = t.cells;
  for (size_t v = 0; v < n; v++)
    if (profile.values()[v].saved) t.last_release[v] = t.cells;
  for (size_t i = 0; i < profile.steps().size(); i++) {
    const Step& s = profile.steps()[i];
    switch (s.kind) {
      case StepKind::kMake: t.birth[at(s.id)] = cell[i]; break;
      case StepKind::kGone: t.gone[at(s.id)] = cell[i]; break;
      case StepKind::kRelease: t.last_release[at(s.id)] = cell[i]; break;
      case StepKind::kUnpack:
        t.last_unpack[at(s.id)] = cell[i];
        t.unpacks.push_back({cell[i], s.id});
        break;
      case StepKind::kOpEnd:
        for (int32_t v : packable[at(s.id)]) t.packed_from[at(v)] = cell[i];
        break;
      case StepKind::kForwardEnd: t.forward_end = cell[i]; break;
      default: break;
    }
  }
  t.plain_peak = reprise::plain_peak(t, profile);
  return t;
}

}  // namespace reprise
