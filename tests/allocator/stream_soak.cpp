// Random programs over several streams: --programs=N (default 1,000,000) of --operations=N operations (default 60). Prints the seed; exit 1 on an early reuse.
// --forget=passed|wait|fence: on a device that forgets that wait. Then finding nothing within N programs is the failure.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/allocator/stream_program.hpp"

using namespace reprise::testing;

namespace {

struct Asked {
  std::size_t programs = 1'000'000, operations = 60;
  std::uint64_t seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  Forgotten forgotten = Forgotten::kNothing;
};

Asked parse(int count, char** arguments) {
  Asked asked;
  for (int i = 1; i < count; ++i) {
    const char* const text = arguments[i];
    if (std::strncmp(text, "--programs=", 11) == 0) asked.programs = std::strtoull(text + 11, nullptr, 10);
    else if (std::strncmp(text, "--operations=", 13) == 0) asked.operations = std::strtoull(text + 13, nullptr, 10);
    else if (std::strncmp(text, "--seed=", 7) == 0) asked.seed = std::strtoull(text + 7, nullptr, 10);
    else if (std::strcmp(text, "--forget=passed") == 0) asked.forgotten = Forgotten::kPassed;
    else if (std::strcmp(text, "--forget=wait") == 0) asked.forgotten = Forgotten::kWait;
    else if (std::strcmp(text, "--forget=fence") == 0) asked.forgotten = Forgotten::kFence;
    else std::fprintf(stderr, "unknown: %s\n", text), std::exit(2);
  }
  return asked;
}

}  // namespace

int main(int count, char** arguments) {
  const Asked asked = parse(count, arguments);
  std::printf("seed %llu\n", static_cast<unsigned long long>(asked.seed));
  StreamOutcome sum;
  for (std::size_t i = 0; i < asked.programs; ++i) {
    StreamSetting setting = stream_setting(i);
    setting.forgotten = asked.forgotten;
    const StreamProgram program = random_stream_program(asked.seed + i, asked.operations);
    const StreamOutcome outcome = run(program, setting);
    sum.allocations += outcome.allocations;
    sum.reused += outcome.reused;
    sum.crossed += outcome.crossed;
    if (outcome.wrong.empty()) continue;
    const StreamProgram small = minimised(program, setting);
    std::printf("program %zu: %s; made small: %s\n%s", i + 1, outcome.wrong.c_str(), run(small, setting).wrong.c_str(), as_source(small).c_str());
    return asked.forgotten == Forgotten::kNothing ? 1 : 0;
  }
  std::printf("%zu programs, %zu allocations, %zu over memory used before, %zu of those by another stream: 0 too early\n", asked.programs, sum.allocations,
              sum.reused, sum.crossed);
  return asked.forgotten == Forgotten::kNothing ? 0 : 1;
}
