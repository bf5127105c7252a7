// A warm malloc + free pair by size, in nanoseconds of CPU time of one thread: ours, ours served by plan, or whatever malloc is (LD_PRELOAD).
//
// usage: reprise_allocator_pairs ours|planned|malloc [--rounds N] [--size BYTES --pairs N]
// One line per size: bytes, then the least of N rounds. With --size: that many pairs of that size and no clock, for callgrind.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

#include "allocator/caching_allocator.hpp"
#include "allocator/host/host_device.hpp"

namespace {

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

reprise::CachingAllocator& core() {
  static auto* const made = new reprise::CachingAllocator(*new reprise::HostDevice);
  return *made;
}

struct Ours {
  void* allocate(std::size_t bytes) { return allocator.allocate(bytes); }
  void free(void* pointer) { allocator.deallocate(pointer); }
  reprise::CachingAllocator& allocator = core();
};

// Every pair is the next of a planned step, which is begun again after so many of them; that is counted too. Small objects are nobody's plan.
struct Planned {
  static constexpr std::size_t kPieces = 5000;
  explicit Planned(std::size_t bytes) {
    std::vector<reprise::PlannedPiece> pieces(kPieces);
    for (std::size_t n = 0; n < kPieces; ++n) pieces[n] = {.bytes = (bytes + 63) / 64 * 64, .dies_before = static_cast<std::uint32_t>(n + 1)};
    step = std::make_shared<const reprise::PlannedStep>(std::move(pieces));
  }
  void* allocate(std::size_t bytes) {
    if (next++ % kPieces == 0) allocator.begin_planned(step);
    return allocator.allocate(bytes);
  }
  void free(void* pointer) { allocator.deallocate(pointer); }
  reprise::CachingAllocator& allocator = core();
  std::shared_ptr<const reprise::PlannedStep> step;
  std::size_t next = 0;
};

struct Malloc {
  void* allocate(std::size_t bytes) { return std::malloc(bytes); }
  void free(void* pointer) { std::free(pointer); }
};

template <class Heap>
void pairs(Heap heap, std::size_t bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    void* pointer = heap.allocate(bytes);
    asm volatile("" : "+r"(pointer) : : "memory");  // the pair must not be optimised away
    heap.free(pointer);
  }
}

template <class Heap>
double nanoseconds(Heap heap, std::size_t bytes, std::size_t rounds) {
  constexpr std::size_t kPairs = 200'000;
  pairs(heap, bytes, 5000);
  double least = 1e9;
  for (std::size_t i = 0; i < rounds; ++i) {
    const double start = seconds();
    pairs(heap, bytes, kPairs);
    least = std::min(least, (seconds() - start) / kPairs * 1e9);
  }
  return least;
}

}  // namespace

int main(int count, char** arguments) {
  std::size_t rounds = 9;
  std::size_t size = 0;
  std::size_t number = 0;
  for (int i = 2; i + 1 < count; i += 2) {
    const std::string_view name = arguments[i];
    (name == "--rounds" ? rounds : name == "--size" ? size : number) = std::strtoull(arguments[i + 1], nullptr, 10);
  }
  const std::string_view which = count > 1 ? arguments[1] : "";
  if (which != "ours" && which != "planned" && which != "malloc") {
    std::fprintf(stderr, "usage: reprise_allocator_pairs ours|planned|malloc [--rounds N] [--size BYTES --pairs N]\n");
    return 2;
  }
  if (size != 0) {
    which == "ours" ? pairs(Ours{}, size, number) : which == "planned" ? pairs(Planned(size), size, number) : pairs(Malloc{}, size, number);
    return 0;
  }
  for (std::size_t bytes = 64; bytes <= (std::size_t{16} << 20); bytes *= 4) {
    for (const std::size_t exact : {bytes, bytes * 2 + bytes / 2 + 8}) {
      if (which == "planned" && exact <= 1024) continue;
      const double least = which == "ours"      ? nanoseconds(Ours{}, exact, rounds)
                           : which == "planned" ? nanoseconds(Planned(exact), exact, rounds)
                                                : nanoseconds(Malloc{}, exact, rounds);
      std::printf("%zu %.2f\n", exact, least);
    }
  }
  return 0;
}
