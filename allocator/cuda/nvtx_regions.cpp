// Built where nvtx3/nvToolsExtMem.h is found; it is header-only, and opens the tool (NVTX_INJECTION64_PATH) at its first call.
#include "allocator/cuda/nvtx_regions.hpp"

#include <nvtx3/nvToolsExtMem.h>

#include <cstdint>

namespace reprise::cuda {

namespace {

// Size and version come first in each of NVTX's descriptions.
template <class Description>
Description described() {
  Description made{};
  made.extCompatID = NVTX_EXT_COMPATID_MEM;
  made.structSize = static_cast<std::uint16_t>(sizeof(Description));
  return made;
}

class Told final : public NvtxRegions {
 public:
  Told(nvtxDomainHandle_t domain, nvtxMemHeapHandle_t heap) : domain_(domain), heap_(heap) {}
  ~Told() override { nvtxMemHeapUnregister(domain_, heap_); }

  void add(const void* first, std::size_t bytes) noexcept override {
    const nvtxMemVirtualRangeDesc_t range{bytes, first};
    auto regions = described<nvtxMemRegionsRegisterBatch_t>();
    regions.regionType = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
    regions.heap = heap_;
    regions.regionCount = 1;
    regions.regionDescElementSize = sizeof(range);
    regions.regionDescElements = &range;
    nvtxMemRegionsRegister(domain_, &regions);
  }

  void remove(const void* first) noexcept override {
    nvtxMemRegionRef_t region{};
    region.pointer = first;
    auto regions = described<nvtxMemRegionsUnregisterBatch_t>();
    regions.refType = NVTX_MEM_REGION_REF_TYPE_POINTER;
    regions.refCount = 1;
    regions.refElementSize = sizeof(region);
    regions.refElements = &region;
    nvtxMemRegionsUnregister(domain_, &regions);
  }

 private:
  const nvtxDomainHandle_t domain_;
  const nvtxMemHeapHandle_t heap_;
};

}  // namespace

std::unique_ptr<NvtxRegions> NvtxRegions::make(const void* first, std::size_t bytes, const std::string& name, std::string& why) {
  const nvtxDomainHandle_t domain = nvtxDomainCreateA("reprise");  // lives as long as the process: one for all heaps
  const nvtxMemVirtualRangeDesc_t range{bytes, first};
  auto heap = described<nvtxMemHeapDesc_t>();
  heap.usage = NVTX_MEM_HEAP_USAGE_TYPE_SUB_ALLOCATOR;
  heap.type = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  heap.typeSpecificDescSize = sizeof(range);
  heap.typeSpecificDesc = &range;
  heap.messageType = NVTX_MESSAGE_TYPE_ASCII;
  heap.message.ascii = name.c_str();
  const nvtxMemHeapHandle_t handle = nvtxMemHeapRegister(domain, &heap);
  if (handle != nullptr) return std::make_unique<Told>(domain, handle);
  why = "no tool that takes them is attached";
  return nullptr;
}

}  // namespace reprise::cuda
