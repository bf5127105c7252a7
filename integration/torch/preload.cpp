// libreprise.so, for LD_PRELOAD: links nothing of torch. Once libc10 is in the process it opens libreprise_torch.so, which lies next to
// it, and calls reprise_install(). REPRISE=0 switches it off, any other value on; without one a REPRISE_BUDGET is enough. Says one line when it fails.
//
// When libc10 is there: at start for a program that is linked to torch; otherwise at the first dlopen after the one that brought it.
// dlopen itself is a tail call, so that the loader still sees the caller's own search path.
#include <dlfcn.h>

#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using Open = void* (*)(const char*, int) noexcept;

std::atomic<bool> settled{false};  // installed, failed, or switched off
std::atomic<Open> next_dlopen{nullptr};

Open real_dlopen() noexcept {
  Open open = next_dlopen.load(std::memory_order_relaxed);
  if (open == nullptr) {
    open = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
    next_dlopen.store(open, std::memory_order_relaxed);
  }
  return open;
}

void fail(const char* what, const char* why) noexcept { std::fprintf(stderr, "reprise: %s: %s\n", what, why != nullptr ? why : "unknown reason"); }

// The path of libreprise_torch.so in the directory of this library.
bool adapter_path(char (&path)[PATH_MAX]) noexcept {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&adapter_path), &self) == 0 || self.dli_fname == nullptr) return false;
  const char* const slash = std::strrchr(self.dli_fname, '/');
  const int directory = slash == nullptr ? 0 : static_cast<int>(slash - self.dli_fname + 1);
  const int length = std::snprintf(path, sizeof path, "%.*s%s", directory, self.dli_fname, "libreprise_torch.so");
  return length > 0 && length < PATH_MAX;
}

void install() noexcept {
  char path[PATH_MAX];
  if (!adapter_path(path)) return fail("cannot find its own directory", nullptr);
  void* const adapter = real_dlopen()(path, RTLD_NOW | RTLD_GLOBAL);
  if (adapter == nullptr) return fail("not loaded", dlerror());
  using Install = int (*)();
  const auto reprise_install = reinterpret_cast<Install>(dlsym(adapter, "reprise_install"));
  if (reprise_install == nullptr) return fail("not loaded", dlerror());
  if (const int code = reprise_install(); code != 0) std::fprintf(stderr, "reprise: not installed: reprise_install() returned %d\n", code);
}

void install_if_torch_is_there() noexcept {
  if (settled.load(std::memory_order_acquire) || real_dlopen() == nullptr) return;
  void* const c10 = real_dlopen()("libc10.so", RTLD_LAZY | RTLD_NOLOAD);
  if (c10 == nullptr) return;
  dlclose(c10);
  if (!settled.exchange(true)) install();
}

bool is_set(const char* text) noexcept { return text != nullptr && *text != '\0'; }

bool wanted() noexcept {
  const char* const asked = std::getenv("REPRISE");
  return is_set(asked) ? std::strcmp(asked, "0") != 0 : is_set(std::getenv("REPRISE_BUDGET"));
}

__attribute__((constructor)) void start() noexcept {
  if (wanted()) install_if_torch_is_there();
  else settled.store(true);
}

}  // namespace

// Must be a tail call: built with -O2 or more (-foptimize-sibling-calls).
extern "C" __attribute__((visibility("default"), optimize("O2"))) void* dlopen(const char* file, int mode) noexcept {
  install_if_torch_is_there();
  return real_dlopen()(file, mode);
}
