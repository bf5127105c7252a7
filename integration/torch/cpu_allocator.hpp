// The caching core as torch's CPU allocator. Needs libc10 only.
//
// T1: a DataPtr of ours has context == data (torch's "simple" pointers), its deleter accepts null, 0 bytes are a null pointer
// T2: tensors made before install_cpu_allocator() keep the deleter they were made with
// T3: a forked child has no cap, no pressure callback and no observer
// T4: a request that cannot be served (nor put into the temporary file, overflow.hpp) throws c10::OutOfMemoryError with the text of set_out_of_memory_text
//
// Threads: everything may be called from any thread. The core is never destroyed: tensors may outlive static destructors.
#pragma once

#include <cstddef>
#include <string>

#include "allocator/caching_allocator.hpp"

namespace reprise {

CachingAllocator& cpu_core();

// Makes the core torch's CPU allocator. False when another allocator of the same priority cannot be replaced.
bool install_cpu_allocator();
bool cpu_allocator_installed();
void (*cpu_deleter())(void*);  // of every DataPtr of ours

// What an out-of-memory error says; nullptr restores the default (asked, live, reserved, cap). May throw: then the default is used.
void set_out_of_memory_text(std::string (*text)(std::size_t asked_bytes));

// Allocations in the temporary file (overflow.hpp), as the core's observer gets its own: bytes, negative when freed. nullptr: nobody.
void tell_of_overflow(void* pointer, long long change);  // by whoever takes memory from there and gives it back
void set_overflow_outlet(void (*tell)(void* pointer, long long change));

}  // namespace reprise
