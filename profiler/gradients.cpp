#include "profiler/gradients.hpp"

#include <vector>

namespace reprise {
namespace {

std::vector<bool> appearing_buffers(const Profile& profile) {
  std::vector<bool> appears(profile.data().buffers.size(), false);
  bool backward = false;
  for (const Step& s : profile.steps()) {
    backward |= s.kind == StepKind::kForwardEnd;
    if (s.kind == StepKind::kAllocate) appears[static_cast<size_t>(s.id)] = backward;
    if (s.kind == StepKind::kFree) appears[static_cast<size_t>(s.id)] = false;
  }
  return appears;
}

}  // namespace

int64_t appearing_bytes(const Profile& profile) {
  const std::vector<bool> appears = appearing_buffers(profile);
  int64_t sum = 0;
  for (size_t b = 0; b < appears.size(); b++) sum += appears[b] ? profile.data().buffers[b] : 0;
  return sum;
}

Profile with_gradients_resident(const Profile& profile) {
  const std::vector<bool> appears = appearing_buffers(profile);
  ProfileData d = profile.data();
  d.start_live_bytes += appearing_bytes(profile);
  d.steps.clear();
  std::vector<int32_t> pending;
  auto free_pending = [&] {
    for (int32_t b : pending) d.steps.push_back({StepKind::kFree, b});
    pending.clear();
  };
  for (const Step& s : profile.steps()) {
    if (s.kind == StepKind::kUnpack) free_pending();
    d.steps.push_back(s);
    if (s.kind == StepKind::kAllocate && appears[static_cast<size_t>(s.id)]) pending.push_back(s.id);
  }
  free_pending();
  return Profile(std::move(d));
}

}  // namespace reprise
