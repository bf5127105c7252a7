// reprise.distributed's ranks, as the engine asks for them; see integration/torch/agreement.hpp.
#pragma once

#include <nanobind/nanobind.h>

namespace reprise::python {

// finder() returns None, or an object with rank, world, any(bool) and gather(str). It is called, and kept, as long as the process lives.
void set_ranks_finder(nanobind::object finder);

}  // namespace reprise::python
