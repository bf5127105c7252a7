// HostDevice beyond what every Device must do: huge pages never put memory behind pages that were given back (M2).
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "allocator/host/host_device.hpp"

namespace reprise {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr int kCollapse = 25;  // MADV_COLLAPSE: what the kernel does by itself when it has time

std::size_t resident_pages(std::byte* first, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages(bytes / page);
  EXPECT_EQ(mincore(first, bytes, pages.data()), 0);
  return static_cast<std::size_t>(std::count_if(pages.begin(), pages.end(), [](unsigned char byte) { return (byte & 1) != 0; }));
}

std::size_t huge_bytes(const std::byte* base, std::size_t bytes) {
  std::ifstream maps("/proc/self/smaps");
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  std::size_t total = 0;
  bool inside = false;
  for (std::string text; std::getline(maps, text);) {
    std::size_t from = 0;
    std::size_t to = 0;
    if (std::sscanf(text.c_str(), "%zx-%zx ", &from, &to) == 2) inside = from < begin + bytes && to > begin;
    std::size_t kib = 0;
    if (inside && std::sscanf(text.c_str(), "AnonHugePages: %zu kB", &kib) == 1) total += kib * 1024;
  }
  return total;
}

// Does this kernel give huge pages to a plain mapping that asks for them? (Switched off, or none to be had.)
bool kernel_gives_huge_pages() {
  const std::size_t bytes = 8 * kMiB;
  void* const plain = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(plain, bytes, MADV_HUGEPAGE);
  std::memset(plain, 1, bytes);
  const bool found = huge_bytes(static_cast<std::byte*>(plain), bytes) != 0;
  munmap(plain, bytes);
  return found;
}

TEST(HugePages, AreThereForWholeBlocksHoweverTheyWereCommitted) {
  if (!kernel_gives_huge_pages()) GTEST_SKIP() << "this kernel gives no transparent huge pages, asked for or not";
  HostDevice device;
  std::byte* const base = device.reserve(64 * kMiB);
  ASSERT_TRUE(device.commit(base, 8 * kMiB));
  std::memset(base, 1, 8 * kMiB);
  EXPECT_GE(huge_bytes(base, 64 * kMiB), 4 * kMiB);
  const std::size_t before = huge_bytes(base, 64 * kMiB);
  for (std::size_t at = 16 * kMiB; at < 24 * kMiB; at += 64 * 1024) {  // piece by piece, as small tensors come
    ASSERT_TRUE(device.commit(base + at, 64 * 1024));
    std::memset(base + at, 1, 64 * 1024);
  }
  EXPECT_GE(huge_bytes(base, 64 * kMiB), before + 4 * kMiB);
  device.release(base, 64 * kMiB);
}

TEST(HugePages, NeverBringBackWhatWasGivenBack) {
  HostDevice device;
  const std::size_t page = device.page_bytes();
  std::byte* const base = device.reserve(64 * kMiB);
  ASSERT_TRUE(device.commit(base, 16 * kMiB));
  std::memset(base, 1, 16 * kMiB);
  EXPECT_EQ(resident_pages(base, 16 * kMiB), 16 * kMiB / page);
  for (std::size_t at = kMiB; at < 16 * kMiB; at += 2 * kMiB) ASSERT_TRUE(device.decommit(base + at, page));  // one in each block
  const std::size_t left = 16 * kMiB / page - 8;
  EXPECT_EQ(resident_pages(base, 16 * kMiB), left);
  madvise(base, 16 * kMiB, kCollapse);
  EXPECT_EQ(resident_pages(base, 16 * kMiB), left);
  device.release(base, 64 * kMiB);
}

}  // namespace
}  // namespace reprise
