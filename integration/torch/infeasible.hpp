// Infeasible: how the news that a step cannot be run within the budget reaches the program.
//
// The allocator throws c10::OutOfMemoryError where it happens, perhaps inside a kernel and under a Pass's mutex. At the outermost operator, or where
// autograd fetches a saved tensor, no mutex of ours is held any more: there it becomes reprise::Infeasible, or in Python reprise.Infeasible, whose
// object needs the GIL. Threads: any.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string>
#include <utility>

#include "integration/torch/controller.hpp"

namespace reprise::engine {

// Throws an exception that says `text`; smallest_budget_bytes 0: not known. Set by the Python module; the default throws reprise::Infeasible.
using InfeasibleThrower = void (*)(const std::string& text, int64_t smallest_budget_bytes);
void set_infeasible_thrower(InfeasibleThrower thrower);

std::string amounts_text(std::size_t asked_bytes);                                       // asked, live, reserved, cap
std::string out_of_memory_text(std::size_t asked_bytes);                                 // the same, and what holds most at this moment
std::pair<std::string, int64_t> infeasible_words(std::string text, const Known& known);  // adds who holds the memory, and the smallest budget (0: not known)
[[noreturn]] void raise(const std::string& text, int64_t smallest_budget_bytes);
[[noreturn]] void throw_infeasible(std::string text, const Known& known);
[[noreturn]] void convert(const c10::OutOfMemoryError& error, const Pass* pass);

}  // namespace reprise::engine
