// Gradients: the bytes that a backward leaves behind. They appear in the first step, and in every step after zero_grad(set_to_none=True); otherwise
// they are there from the start, and what backward makes is added to them and freed.
//
// Threads: none. Failure: none; a Profile in which nothing appears comes back as it was.
#pragma once

#include "profiler/profile.hpp"

namespace reprise {

// Bytes of buffers allocated after the end of the forward and not freed in the Pass.
int64_t appearing_bytes(const Profile& profile);

// The same step with those buffers already there: each is allocated, added where it belongs, and freed before backward's next node reads a saved
// tensor (torch runs a parameter's accumulation right after the node that made its gradient). start_live_bytes rises by appearing_bytes().
Profile with_gradients_resident(const Profile& profile);

}  // namespace reprise
