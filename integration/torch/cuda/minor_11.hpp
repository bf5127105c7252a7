// torch 2.11: the interface that forwarding.hpp spells out.
#pragma once

#include "integration/torch/cuda/forwarding.hpp"

namespace reprise::cuda {

using MinorForwarding = Forwarding;

}  // namespace reprise::cuda
