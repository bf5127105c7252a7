#include "allocator/slab_heap.hpp"

#include <bit>
#include <cstdlib>
#include <new>

namespace reprise {

SlabHeap::SlabHeap(Arena& arena, std::size_t bytes, std::size_t rounding_bytes, std::size_t limit_bytes, bool caches) : arena_(arena), bytes_(bytes) {
  if (bytes_ == 0) return;
  slabs_ = static_cast<Slab**>(std::calloc(bytes_ / kSlabBytes, sizeof(slabs_[0])));
  if (slabs_ == nullptr) {
    bytes_ = 0;
    return;
  }
  available_.resize(limit_bytes / kUnitBytes);
  for (std::size_t i = 0; i < available_.size(); ++i) {
    ObjectStack& stack = stacks_[i];
    stack.object_bytes = ((i + 1) * kUnitBytes + rounding_bytes - 1) & ~(rounding_bytes - 1);
    if (caches) stack.depth = cache_depth(stack.object_bytes);
  }
}

SlabHeap::~SlabHeap() {
  for (std::size_t offset = 0; offset < next_offset_; offset += kSlabBytes) delete slab_at(offset);
  std::free(slabs_);
}

void SlabHeap::push(Slab*& head, Slab* slab) noexcept {
  slab->previous = nullptr;
  slab->next = head;
  if (head != nullptr) head->previous = slab;
  head = slab;
}

void SlabHeap::unlink(Slab*& head, Slab* slab) noexcept {
  (slab->previous != nullptr ? slab->previous->next : head) = slab->next;
  if (slab->next != nullptr) slab->next->previous = slab->previous;
  slab->previous = slab->next = nullptr;
}

// A committed slab with nothing taken, in no list: an idle one, one that was given back, or a new one.
Slab* SlabHeap::fresh_slab(std::size_t class_index) noexcept {
  Slab* slab = idle_;
  if (slab != nullptr) {
    unlink(idle_, slab);
  } else {
    const bool recycled = uncommitted_ != nullptr;
    if (!recycled && bytes_ - next_offset_ < kSlabBytes) return nullptr;
    slab = recycled ? uncommitted_ : new (std::nothrow) Slab;
    if (slab == nullptr) return nullptr;
    if (!recycled) slab->offset = next_offset_;
    if (arena_.commit(arena_.touching(slab->offset, kSlabBytes)) != CommitResult::kDone) {
      if (!recycled) delete slab;
      return nullptr;
    }
    slab->committed = true;
    if (recycled) {
      unlink(uncommitted_, slab);
    } else {
      std::atomic_ref<Slab*>(slabs_[next_offset_ / kSlabBytes]).store(slab, std::memory_order_release);
      next_offset_ += kSlabBytes;
    }
  }
  slab->class_index = class_index;
  slab->stack = &stacks_[class_index];
  const std::size_t objects = objects_per_slab(class_index);
  for (std::size_t word = 0; word < slab->free_bits.size(); ++word) {
    const std::size_t bits = objects > word * 64 ? std::min<std::size_t>(64, objects - word * 64) : 0;
    slab->free_bits[word] = bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
  }
  return slab;
}

std::size_t SlabHeap::take_from_slabs(std::size_t class_index, void** objects, std::size_t count) noexcept {
  const std::size_t object = object_bytes(class_index);
  const std::size_t limit = objects_per_slab(class_index);
  std::size_t done = 0;
  while (done < count) {
    Slab* slab = available_[class_index];
    if (slab == nullptr) {
      slab = fresh_slab(class_index);
      if (slab == nullptr) break;
      push(available_[class_index], slab);
    }
    for (std::size_t word = 0; word < slab->free_bits.size() && done < count; ++word) {
      for (std::uint64_t& bits = slab->free_bits[word]; bits != 0 && done < count; bits &= bits - 1) {
        const std::size_t index = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        objects[done++] = arena_.base() + slab->offset + index * object;
        ++slab->taken;
        taken_bytes_ += object;
      }
    }
    if (slab->taken == limit) unlink(available_[class_index], slab);
  }
  return done;
}

void SlabHeap::give_to_slab(void* given) noexcept {
  const std::size_t offset = static_cast<std::size_t>(static_cast<std::byte*>(given) - arena_.base());
  Slab* slab = slab_at(offset);
  const std::size_t object = object_bytes(slab->class_index);
  const std::size_t index = (offset - slab->offset) / object;
  const bool was_exhausted = slab->taken == objects_per_slab(slab->class_index);
  slab->free_bits[index / 64] |= std::uint64_t{1} << (index % 64);
  --slab->taken;
  taken_bytes_ -= object;
  if (slab->taken == 0) {
    if (!was_exhausted) unlink(available_[slab->class_index], slab);
    push(idle_, slab);
  } else if (was_exhausted) {
    push(available_[slab->class_index], slab);
  }
}

void* SlabHeap::take(ObjectStack& stack, Record** record_of) noexcept {
  std::array<void*, kCacheDepth> fresh;
  const std::size_t class_index = static_cast<std::size_t>(&stack - stacks_.data());
  const std::size_t room = stack.depth - stack.count;
  for (std::size_t i = take_from_slabs(class_index, fresh.data(), 1 + std::min(room, stack.depth / 2)); i-- > 0;) {
    const std::size_t offset = static_cast<std::size_t>(static_cast<std::byte*>(fresh[i]) - arena_.base());
    Record* const record_here = &record(*slab_at(offset), offset);
    if (i == 0) return *record_of = record_here, fresh[0];
    stack.push(fresh[i], record_here);
  }
  return nullptr;
}

void SlabHeap::give(void* object) noexcept {
  const std::size_t offset = static_cast<std::size_t>(static_cast<std::byte*>(object) - arena_.base());
  Slab* const slab = slab_at(offset);
  ObjectStack& stack = *slab->stack;
  if (stack.depth == 0) return give_to_slab(object);
  if (stack.count == stack.depth) spill(stack, stack.depth / 2);
  stack.push(object, &record(*slab, offset));
}

// The oldest objects of a stack go back to their slabs.
void SlabHeap::spill(ObjectStack& stack, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) give_to_slab(stack.pointers[i]);
  stack.drop_oldest(count);
}

void SlabHeap::give_cached() noexcept {
  for (ObjectStack& stack : stacks_) spill(stack, stack.count);
}

std::size_t SlabHeap::cached_bytes() const noexcept {
  std::size_t total = 0;
  for (const ObjectStack& stack : stacks_) total += stack.count * stack.object_bytes;
  return total;
}

std::size_t SlabHeap::trim(std::size_t bytes) noexcept {
  std::size_t given = 0;
  Slab* next = nullptr;
  for (Slab* slab = idle_; slab != nullptr && given < bytes; slab = next) {
    next = slab->next;
    const PageRange pages = arena_.inside(slab->offset, kSlabBytes);
    given += arena_.decommit(pages, pages.count()) * arena_.page_bytes();
    if (arena_.committed_in(pages) == pages.count()) continue;  // the device refused: still idle
    unlink(idle_, slab);
    slab->committed = false;
    push(uncommitted_, slab);
  }
  return given;
}

}  // namespace reprise
