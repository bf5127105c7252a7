// How operators raise reprise.Infeasible; see integration/torch/infeasible.hpp.
#pragma once

#include <cstdint>
#include <string>

namespace reprise::python {

// Throws torch's python_error with a reprise.Infeasible in it. Takes the GIL: call it with no lock held.
void throw_infeasible(const std::string& text, int64_t smallest_budget_bytes);

// For our own bindings, which know nothing of torch's python_error: inside a catch block, makes it Python's current error. False: it is another exception.
bool restore_current();

}  // namespace reprise::python
