// The same job in a program that knows nothing of reprise, to be trained inside a budget from outside:
//   REPRISE_BUDGET=80MiB REPRISE_REPORT=report.txt LD_PRELOAD=…/libreprise.so unmodified 12 result.bin
// usage: unmodified STEPS RESULT [FILE]   RESULT gets the bytes of all losses and of all final parameters.
#include <cstdio>

#include "examples/cpp/gpt.hpp"

namespace {
void write(std::ofstream& file, const torch::Tensor& tensor) {
  const auto plain = tensor.detach().contiguous();
  file.write(static_cast<const char*>(plain.const_data_ptr()), static_cast<std::streamsize>(plain.nbytes()));
}
}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return std::fprintf(stderr, "usage: unmodified STEPS RESULT [FILE]\n"), 2;
  example::Job job(example::read_bytes(count > 3 ? arguments[3] : "/proc/self/exe"));
  std::ofstream file(arguments[2], std::ios::binary);
  for (int step = 0; step < std::stoi(arguments[1]); ++step) write(file, job.step());
  for (const auto& parameter : job.model->parameters()) write(file, parameter);
  return file.flush() ? 0 : 1;
}
