// How operators raise reprise.Infeasible; see integration/torch/infeasible.hpp.
#pragma once

#include <cstdint>
#include <string>

namespace reprise::python {

// Throws torch's python_error with a reprise.Infeasible in it. Takes the GIL: call it with no lock held.
void throw_infeasible(const std::string& text, int64_t smallest_budget_bytes);

}  // namespace reprise::python
