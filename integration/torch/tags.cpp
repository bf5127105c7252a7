#include "integration/torch/tags.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/cpu_allocator.hpp"

namespace reprise::engine {
namespace {

void* own_pointer(const c10::StorageImpl& storage) {
  void* const pointer = storage.data_ptr().get_context();
  const bool plain = !storage.device().is_cpu() || storage.data_ptr().get_deleter() == cpu_deleter();  // nobody else's pointers lie in a GPU's range
  return pointer && plain && budgeted_core().owns(pointer) ? pointer : nullptr;
}

}  // namespace

const char* name_of(Category category) {
  switch (category) {
    case Category::kParameter: return "parameter";
    case Category::kActivation: return "activation";
    case Category::kBackward: return "backward";
    case Category::kOther: break;
  }
  return "other";
}

void tag_storage(const c10::StorageImpl& storage, Category category, int32_t region) {
  if (void* const pointer = own_pointer(storage))
    budgeted_core().set_tag(pointer, {static_cast<uint8_t>(category), budgeted_core().tag(pointer).saved, region});
}

void tag_saved(const c10::StorageImpl& storage, bool saved) {
  void* const pointer = own_pointer(storage);
  if (!pointer) return;
  Tag tag = budgeted_core().tag(pointer);
  tag.saved = saved;
  budgeted_core().set_tag(pointer, tag);
}

void tag_backward(void* pointer) { budgeted_core().set_tag(pointer, {static_cast<uint8_t>(Category::kBackward), false, -1}); }

std::vector<Holding> holdings() {
  std::map<std::tuple<uint8_t, int32_t, bool>, Holding> sums;
  budgeted_core().visit_live([&](void*, std::size_t bytes, Tag tag) {
    Holding& sum = sums[{tag.category, tag.region, tag.saved}];
    sum.bytes += static_cast<int64_t>(bytes);
    sum.pieces++;
  });
  std::vector<Holding> out;
  for (auto& [key, sum] : sums) {
    sum.category = static_cast<Category>(std::get<0>(key));
    sum.region = std::get<1>(key);
    sum.saved = std::get<2>(key);
    out.push_back(sum);
  }
  std::stable_sort(out.begin(), out.end(), [](const Holding& a, const Holding& b) { return a.bytes > b.bytes; });
  return out;
}

}  // namespace reprise::engine
