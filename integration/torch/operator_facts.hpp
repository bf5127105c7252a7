// What the engine must know about an operator, found once and cached: what it writes, whether it draws random numbers, whether it may run twice.
//
// R4: an operator is opaque (its outputs are kept) unless it is known to be a pure function of its arguments: outside torch's own namespaces nothing is known.
// R6: batch norms write their running statistics without saying so in their schemas.
// Collectives (c10d, FSDP's copies around them) write arguments without saying so, and their memory may change until somebody waits for them.
// Threads: the cache is per thread. Cost: one hash look-up.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace reprise::engine {

// Which float32 precisions its kernel may ask for (R5): looking them up costs more than all other settings together.
enum class PrecisionRead : uint8_t { kNone, kMatrixProducts, kAny };

struct OperatorFacts {
  std::string name;                  // "aten::addmm"
  uint64_t hash = 0;                 // of name and overload
  std::vector<uint8_t> writes;       // per argument: 0 no, 1 declared, 2 hidden
  bool mutates = false;              // any of them
  bool hides_writes = false;         // some of them hidden
  bool only_views = false;           // every result aliases an argument and nothing is written: makes no Value
  bool random = false;               // draws random numbers
  int generator_argument = -1;       // where a generator may be passed
  int training_argument = -1;        // hidden writes happen only where this argument is true
  int probability_argument = -1;     // random only where this argument is above 0 (attention's dropout)
  bool metadata_only = false;        // reads the shapes of its arguments and not their content (empty_like)
  bool makes_uninitialised = false;  // its result holds whatever the memory held
  bool overwrites_first = false;     // sets every element that its first argument shows, whatever it held
  PrecisionRead precision = PrecisionRead::kAny;
  bool communicates = false;            // a collective, or a copy into or out of its buffers
  const char* opaque_reason = nullptr;  // nullptr: may run twice
};

const OperatorFacts& facts_of(const c10::OperatorHandle& op);

}  // namespace reprise::engine
