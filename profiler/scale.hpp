// Scale: the Profile of a step at a batch size that was never run, by a line through two sizes that were. Bytes and FLOPs of an operator grow linearly with the
// batch, or not at all (parameters, gradients), so two sizes tell both parts; the order of events is that of the two, which must be the same.
//
// L1  scaled(a, m, b, n, m) has a's bytes and scaled(a, m, b, n, n) has b's, but for what shrinks with the batch: that is taken at its larger size (too
//     high, never too low)
// L2  no byte count lies below that of the smaller measured batch when `batch` is not below it
// Seconds follow the same line, but never fall with the batch: between two measured sizes they are mostly noise.
// Threads: none. Failure: std::invalid_argument naming where the two steps differ, or a batch size outside [1, 2^40].
#pragma once

#include <cstdint>

#include "profiler/profile.hpp"

namespace reprise {

Profile scaled(const Profile& first, int64_t first_batch, const Profile& second, int64_t second_batch, int64_t batch);

}  // namespace reprise
