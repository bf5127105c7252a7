// Tags: what each live allocation is for, so that "who holds the memory" is a query. Set where the engine learns of a storage, kept by the allocator.
// A storage that is not the budgeted core's own (made before it, from numpy, in the temporary file) has none.
//
// Threads: any thread may call; two that tag one storage at once leave one of their tags.
#pragma once

#include <c10/core/Storage.h>

#include <cstdint>
#include <string>
#include <vector>

namespace reprise::engine {

enum class Category : uint8_t { kOther, kParameter, kActivation, kBackward };  // kBackward: gradients, and what a backward uses in passing

const char* name_of(Category category);

void tag_storage(const c10::StorageImpl& storage, Category category, int32_t region);
void tag_saved(const c10::StorageImpl& storage, bool saved);  // autograd holds it
void tag_backward(void* pointer);                             // of an allocation of the budgeted core

struct Holding {
  Category category = Category::kOther;
  int32_t region = -1;  // -1: not known
  bool saved = false;
  int64_t bytes = 0, pieces = 0;
};
std::vector<Holding> holdings();  // of all live allocations, most bytes first; they add up to the allocator's live bytes

}  // namespace reprise::engine
