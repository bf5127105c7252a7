// reprise.distributed.unwrap, as the engine asks for it; see integration/torch/wrapped.hpp.
#pragma once

#include <nanobind/nanobind.h>

namespace reprise::python {

// unwrap(tensor) returns None, or (plain tensor, function that wraps such a tensor again). Called as long as the process lives.
void set_unwrapper(nanobind::object unwrap);

}  // namespace reprise::python
