#include "policy/batch.hpp"

#include <algorithm>

#include "policy/schemes.hpp"
#include "profiler/scale.hpp"

namespace reprise {
namespace {

int64_t bytes_of(const Plan& p) { return std::max(p.predicted_live_bytes, p.predicted_reserved_bytes); }

}  // namespace

BatchPrediction predict_batch(const MeasuredBatch& first, const MeasuredBatch& second, int64_t batch, int64_t budget_bytes, const std::string& policy,
                              const PlannerOptions& options) {
  const Scheme scheme = Scheme::parse(policy);
  const Profile profile = scaled(first.profile, first.batch, second.profile, second.batch, batch);
  Planner planner(profile, options);
  BatchPrediction out;
  out.start_bytes = profile.data().start_live_bytes;
  out.useful_flops = 3 * profile.flops();  // a matrix product's backward is two of its size
  const int64_t limit = budget_bytes - out.start_bytes;
  const Plan plain = planner.scheme("none");
  out.plain_bytes = plain.predicted_live_bytes;
  const auto take = [&](const Plan& p) {
    out.fits = bytes_of(p) <= limit;
    out.needed_bytes = out.start_bytes + bytes_of(p);
    out.added_seconds = p.added_seconds;
  };
  if (scheme.kind != Scheme::Kind::kAuto) {
    take(scheme.kind == Scheme::Kind::kNone ? plain : planner.scheme(scheme.name()));
    return out;
  }
  if (bytes_of(plain) <= limit) {
    take(plain);
    return out;
  }
  try {
    if (limit > 0) {
      take(planner.plan(limit));
      return out;
    }
  } catch (const InfeasibleLimit&) {  // said by `fits`
  }
  out.needed_bytes = out.start_bytes + planner.smallest_limit();
  return out;
}

}  // namespace reprise
