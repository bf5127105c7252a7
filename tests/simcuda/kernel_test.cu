// A kernel built by nvcc, launched through whatever libcudart.so the loader finds. On the simulated one it is counted, takes time and does nothing; on a real
// one (ctest -L gpu) its results are checked. Exit status 0 and one line, or 1 and what was wrong.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

__global__ void scaled(const float* x, float* y, float factor, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) y[i] = factor * x[i];
}

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  std::printf("not so: %s\n", what);
  failures++;
}

using Launches = std::uint64_t(int);

void launch_and_check(Launches* launches) {
  constexpr int kCount = 1000;
  std::vector<float> host(kCount, 3.0f), back(kCount, -1.0f);
  float *x = nullptr, *y = nullptr;
  cudaStream_t stream;
  cudaEvent_t before, after;
  expect(cudaMalloc(&x, kCount * sizeof(float)) == cudaSuccess && cudaMalloc(&y, kCount * sizeof(float)) == cudaSuccess, "memory");
  expect(cudaStreamCreate(&stream) == cudaSuccess && cudaEventCreate(&before) == cudaSuccess && cudaEventCreate(&after) == cudaSuccess, "a stream and events");
  cudaMemcpyAsync(x, host.data(), kCount * sizeof(float), cudaMemcpyHostToDevice, stream);
  cudaMemsetAsync(y, 0, kCount * sizeof(float), stream);
  const std::uint64_t counted = launches != nullptr ? launches(0) : 0;
  cudaEventRecord(before, stream);
  scaled<<<(kCount + 255) / 256, 256, 0, stream>>>(x, y, 2.0f, kCount);
  expect(cudaGetLastError() == cudaSuccess, "the launch is accepted");
  cudaEventRecord(after, stream);
  cudaMemcpyAsync(back.data(), y, kCount * sizeof(float), cudaMemcpyDeviceToHost, stream);
  expect(cudaStreamSynchronize(stream) == cudaSuccess, "the stream comes to its end");
  float milliseconds = -1;
  expect(cudaEventElapsedTime(&milliseconds, before, after) == cudaSuccess && milliseconds > 0, "the kernel took time");
  const float expected = launches != nullptr ? 0.0f : 6.0f;
  bool all = true;
  for (const float value : back) all &= value == expected;
  expect(all, launches != nullptr ? "a simulated kernel writes nothing" : "2 * 3 is 6, everywhere");
  if (launches != nullptr) expect(launches(0) == counted + 1, "one launch was counted");
  scaled<<<1, 2048, 0, stream>>>(x, y, 2.0f, kCount);
  expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "2048 threads a block are refused");
  cudaFree(x);
  cudaFree(y);
}

}  // namespace

int main() {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  int devices = 0;
  if (driver == nullptr || cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: there is no CUDA driver, or no device\n");
    return 0;
  }
  cudaDeviceProp properties;
  expect(cudaGetDeviceProperties(&properties, 0) == cudaSuccess, "the device has properties");
  auto* const launches = reinterpret_cast<Launches*>(dlsym(driver, "simcuda_launches"));
  expect((launches != nullptr) == (std::strncmp(properties.name, "Simulated", 9) == 0), "a simulated device says so");
  launch_and_check(launches);
  if (failures == 0) std::printf("a kernel ran on: %s\n", properties.name);
  return failures == 0 ? 0 : 1;
}
