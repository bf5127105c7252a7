// A tool that listens to NVTX's memory regions, as compute-sanitizer does (NVTX_INJECTION64_PATH names it): keeps what is registered, counts the calls, and
// finds mistakes that NVTX's own documentation names. Tests ask it what it heard.
#define NVTX_NO_IMPL
#include <nvtx3/nvToolsExtMem.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>

#define SIMCUDA_API extern "C" __attribute__((visibility("default")))

namespace {

struct Heap {
  std::uintptr_t first = 0;
  std::size_t bytes = 0;
};
struct Region {
  std::size_t bytes = 0;
  const Heap* heap = nullptr;
};

std::mutex mutex;
std::map<const Heap*, Heap> heaps;
std::map<std::uintptr_t, Region> regions;
std::uint64_t calls = 0, mistakes = 0;

void mistake(const char* what, const void* where) {
  mistakes++;
  std::fprintf(stderr, "nvtx_tool: %s: %p\n", what, where);
}

template <class Description>
bool is_whole(const Description* description) {
  if (description->extCompatID == NVTX_EXT_COMPATID_MEM && description->structSize == sizeof(Description)) return true;
  mistake("a description of another version or size", description);
  return false;
}

bool overlaps(std::uintptr_t first, std::size_t bytes) {
  auto at = regions.lower_bound(first);
  if (at != regions.end() && at->first < first + bytes) return true;
  return at != regions.begin() && (--at)->first + at->second.bytes > first;
}

nvtxMemHeapHandle_t register_heap(nvtxDomainHandle_t, const nvtxMemHeapDesc_t* description) {
  const std::lock_guard<std::mutex> lock(mutex);
  calls++;
  const auto* const range = static_cast<const nvtxMemVirtualRangeDesc_t*>(description->typeSpecificDesc);
  if (!is_whole(description) || description->usage != NVTX_MEM_HEAP_USAGE_TYPE_SUB_ALLOCATOR || description->type != NVTX_MEM_TYPE_VIRTUAL_ADDRESS ||
      description->typeSpecificDescSize != sizeof(*range)) {
    mistake("a heap of another kind", range);
    return nullptr;
  }
  auto* const key = new Heap{reinterpret_cast<std::uintptr_t>(range->ptr), range->size};  // never reused: its address is the handle
  heaps[key] = *key;
  return reinterpret_cast<nvtxMemHeapHandle_t>(key);
}

void unregister_heap(nvtxDomainHandle_t, nvtxMemHeapHandle_t handle) {
  const std::lock_guard<std::mutex> lock(mutex);
  calls++;
  const auto* const heap = reinterpret_cast<const Heap*>(handle);
  if (heaps.erase(heap) == 0) mistake("no heap", heap);
  std::erase_if(regions, [&](const auto& region) { return region.second.heap == heap; });
}

void register_regions(nvtxDomainHandle_t, const nvtxMemRegionsRegisterBatch_t* description) {
  const std::lock_guard<std::mutex> lock(mutex);
  calls++;
  if (!is_whole(description)) return;
  const auto* const ranges = static_cast<const nvtxMemVirtualRangeDesc_t*>(description->regionDescElements);
  const auto* const key = reinterpret_cast<const Heap*>(description->heap);
  const auto heap = heaps.find(key);
  if (heap == heaps.end() || description->regionDescElementSize != sizeof(*ranges)) return mistake("regions of no heap", key);
  for (std::size_t i = 0; i < description->regionCount; i++) {
    const auto first = reinterpret_cast<std::uintptr_t>(ranges[i].ptr);
    const std::size_t bytes = ranges[i].size, offset = first - heap->second.first;
    if (first < heap->second.first || offset + bytes > heap->second.bytes) mistake("a region outside of its heap", ranges[i].ptr);
    if (bytes == 0 || overlaps(first, bytes)) mistake("a region that is empty or overlaps", ranges[i].ptr);
    regions[first] = {bytes, key};
  }
}

void unregister_regions(nvtxDomainHandle_t, const nvtxMemRegionsUnregisterBatch_t* description) {
  const std::lock_guard<std::mutex> lock(mutex);
  calls++;
  if (!is_whole(description)) return;
  if (description->refType != NVTX_MEM_REGION_REF_TYPE_POINTER) return mistake("a region that is not named by its address", description);
  for (std::size_t i = 0; i < description->refCount; i++)
    if (regions.erase(reinterpret_cast<std::uintptr_t>(description->refElements[i].pointer)) == 0) mistake("no region", description->refElements[i].pointer);
}

}  // namespace

SIMCUDA_API int InitializeInjectionNvtx2(void*) { return 1; }  // markers and ranges: not listened to

SIMCUDA_API int InitializeInjectionNvtxExtension(nvtxExtModuleInfo_t* module) {
  if (module->moduleId != NVTX_EXT_MODULEID_MEM || module->compatId != NVTX_EXT_COMPATID_MEM) return 0;
  std::intptr_t* const slots = module->segments[0].functionSlots;
  slots[NVTX3EXT_CBID_nvtxMemHeapRegister] = reinterpret_cast<std::intptr_t>(&register_heap);
  slots[NVTX3EXT_CBID_nvtxMemHeapUnregister] = reinterpret_cast<std::intptr_t>(&unregister_heap);
  slots[NVTX3EXT_CBID_nvtxMemRegionsRegister] = reinterpret_cast<std::intptr_t>(&register_regions);
  slots[NVTX3EXT_CBID_nvtxMemRegionsUnregister] = reinterpret_cast<std::intptr_t>(&unregister_regions);
  return 1;
}

SIMCUDA_API std::uint64_t nvtx_tool_calls() { return calls; }
SIMCUDA_API std::uint64_t nvtx_tool_mistakes() { return mistakes; }

// How many there are; the first and the size of each, for at most `most` of them.
SIMCUDA_API std::size_t nvtx_tool_heaps(std::uint64_t* firsts, std::uint64_t* sizes, std::size_t most) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t i = 0;
  for (const auto& [key, heap] : heaps) {
    if (i == most) break;
    firsts[i] = heap.first;
    sizes[i++] = heap.bytes;
  }
  return heaps.size();
}
SIMCUDA_API std::size_t nvtx_tool_regions(std::uint64_t* firsts, std::uint64_t* sizes, std::size_t most) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t i = 0;
  for (const auto& [first, region] : regions) {
    if (i == most) break;
    firsts[i] = first;
    sizes[i++] = region.bytes;
  }
  return regions.size();
}
