// Random programs of --operations=N operations in all (default 10 million), over every setting. Prints the seed; exit 1 on a failure.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/allocator/program.hpp"

using namespace reprise::testing;

int main(int count, char** arguments) {
  std::size_t operations = 10'000'000;
  auto seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  for (int i = 1; i < count; ++i) {
    if (std::strncmp(arguments[i], "--operations=", 13) == 0) operations = std::strtoull(arguments[i] + 13, nullptr, 10);
    if (std::strncmp(arguments[i], "--seed=", 7) == 0) seed = std::strtoull(arguments[i] + 7, nullptr, 10);
  }
  const Setting settings[] = {
      {},
      {.options = {.caches = false}},
      {.options = {.rounding_bytes = 512, .small_limit_bytes = 0, .caches = false}, .host = false},
      {.options = {.cap_bytes = 4 << 20}},
      {.options = {}, .host = false, .capacity_bytes = 3 << 20},
  };
  constexpr std::size_t kChunk = 20'000;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::size_t done = 0;
  for (std::size_t round = 0; done < operations; ++round, done += kChunk) {
    const Setting& setting = settings[round % std::size(settings)];
    const Program program = random_program(seed + round, kChunk);
    const std::string wrong = run(program, setting);
    if (wrong.empty()) continue;
    std::printf("setting %zu, seed %llu: %s\n%s", round % std::size(settings), static_cast<unsigned long long>(seed + round), wrong.c_str(),
                as_source(minimised(program, setting)).c_str());
    return 1;
  }
  std::printf("%zu operations, no difference from the reference\n", done);
  return 0;
}
