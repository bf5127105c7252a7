#include "integration/torch/overflow.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace reprise::overflow {
namespace {

constexpr std::size_t kPage = 4096;

struct Extent {
  std::size_t bytes;   // asked for
  std::size_t length;  // whole pages
  off_t offset;        // in the file
  const Place* place;  // nullptr: the file
};

struct Spare {
  void* pointer;
  off_t offset;
  const Place* place;
};

struct Files {
  std::mutex mutex;
  int file = -1;
  off_t end = 0;
  std::size_t limit = 0;
  std::unordered_map<const void*, Extent> extents;
  std::multimap<std::size_t, Spare> spare;  // by length: still mapped, to be used again
  const Place* place = nullptr;
  std::atomic<std::size_t> peak{0}, first_asked{0};
  std::atomic<int> allowed{0};

  bool room_for(std::size_t bytes) const { return bytes <= limit && live <= limit - bytes; }
  void* map(Extent& extent);
  void give_spare_back();
};

Files& files() {
  static Files* const files = new Files;  // never destroyed: tensors may outlive static destructors
  return *files;
}

// An unlinked file on a real disk, or -1. A file in tmpfs would be the very memory that is not to be used.
int open_in(const char* folder) {
  struct statfs kind {};
  if (!folder || !*folder || statfs(folder, &kind) != 0 || kind.f_type == TMPFS_MAGIC || kind.f_type == RAMFS_MAGIC) return -1;
  return open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

int open_file() {
  const char* const folders[] = {std::getenv("REPRISE_OVERFLOW_DIR"), std::getenv("TMPDIR"), "/var/tmp", "/tmp"};
  for (const char* folder : folders)
    if (const int file = open_in(folder); file >= 0) return file;
  return -1;
}

void* Files::map(Extent& extent) {
  if (extent.place != nullptr) return extent.place->take(extent.length);
  if (file < 0) file = open_file();
  if (file < 0) return nullptr;
  extent.offset = end;
  // The blocks are taken now: a full disk is an answer here, and a crash when the page is first written.
  if (posix_fallocate(file, extent.offset, static_cast<off_t>(extent.length)) != 0) return nullptr;
  void* pointer = mmap(nullptr, extent.length, PROT_READ | PROT_WRITE, MAP_SHARED, file, extent.offset);
  if (pointer == MAP_FAILED) return nullptr;
  end += static_cast<off_t>(extent.length);
  return pointer;
}

void Files::give_spare_back() {
  for (const auto& [length, one] : spare) {
    if (one.place != nullptr) {
      one.place->give(one.pointer);
      continue;
    }
    munmap(one.pointer, length);
    (void)fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, one.offset, static_cast<off_t>(length));
  }
  spare.clear();
  if (extents.empty()) end = 0;
}

}  // namespace

void allow(std::size_t limit_bytes) noexcept {
  Files& f = files();
  std::lock_guard<std::mutex> lock(f.mutex);
  if (++f.allowed == 1) f.first_asked = 0;
  f.limit = limit_bytes;
  f.peak = live_bytes();
}

void forbid() noexcept {
  Files& f = files();
  std::lock_guard<std::mutex> lock(f.mutex);
  if (--f.allowed == 0) f.give_spare_back();
}

bool allowed() noexcept { return files().allowed.load(std::memory_order_relaxed) > 0; }

bool has_room(std::size_t bytes) noexcept {
  Files& f = files();
  std::lock_guard<std::mutex> lock(f.mutex);
  return f.allowed > 0 && f.room_for(bytes);
}

void* allocate(std::size_t bytes) noexcept {
  Files& f = files();
  std::lock_guard<std::mutex> lock(f.mutex);
  if (!f.room_for(bytes)) return nullptr;
  void* pointer = nullptr;
  Extent extent{bytes, (bytes + kPage - 1) / kPage * kPage, 0, f.place};
  const auto it = f.spare.lower_bound(extent.length);
  if (it != f.spare.end() && it->first <= extent.length + extent.length / 4 && it->second.place == f.place) {
    extent.length = it->first;
    pointer = it->second.pointer;
    extent.offset = it->second.offset;
    f.spare.erase(it);
  } else {
    pointer = f.map(extent);
  }
  if (!pointer) return nullptr;
  f.extents.emplace(pointer, extent);
  live += bytes;
  f.peak = std::max<std::size_t>(f.peak, live);
  if (f.first_asked == 0) f.first_asked = bytes;
  return pointer;
}

bool deallocate(void* pointer) noexcept {
  Files& f = files();
  if (live_bytes() == 0) return false;
  std::lock_guard<std::mutex> lock(f.mutex);
  const auto it = f.extents.find(pointer);
  if (it == f.extents.end()) return false;
  live -= it->second.bytes;
  f.spare.emplace(it->second.length, Spare{pointer, it->second.offset, it->second.place});
  f.extents.erase(it);
  if (f.allowed == 0) f.give_spare_back();
  return true;
}

std::size_t size_of(const void* pointer) noexcept {
  Files& f = files();
  if (live_bytes() == 0) return 0;
  std::lock_guard<std::mutex> lock(f.mutex);
  const auto it = f.extents.find(pointer);
  return it == f.extents.end() ? 0 : it->second.bytes;
}

void use_place(const Place* place) noexcept {
  Files& f = files();
  std::lock_guard<std::mutex> lock(f.mutex);
  f.place = place;
}

std::size_t first_asked_bytes() noexcept { return files().first_asked.load(std::memory_order_relaxed); }
std::size_t peak_bytes() noexcept { return files().peak.load(std::memory_order_relaxed); }

}  // namespace reprise::overflow
