#include "profiler/peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kChains = 10;  // independent accumulators: latency × issue width of today's cores
constexpr int kRounds = 20000;

struct Kernel {
  int width;
  float (*run)();
};

struct Narrow {
  typedef float Vector __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
};
struct Wide {
  typedef float Vector __attribute__((vector_size(32)));
  static constexpr int kWidth = 8;
};
struct Widest {
  typedef float Vector __attribute__((vector_size(64)));
  static constexpr int kWidth = 16;
};

// kChains vectors, each kRounds times a = a · x + y.
template <class Shape>
inline __attribute__((always_inline)) float loop() {
  using Vector = typename Shape::Vector;
  Vector a[kChains] = {};
  Vector x = {}, y = {};
  for (int i = 0; i < Shape::kWidth; i++) {
    x[i] = 0.999F;
    y[i] = 0.001F * static_cast<float>(i);
  }
  for (int r = 0; r < kRounds; r++)
    for (Vector& v : a) v = v * x + y;
  float sum = 0;
  for (const Vector& v : a) sum += v[0];
  return sum;
}

float narrow() { return loop<Narrow>(); }
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) float wide() { return loop<Wide>(); }
__attribute__((target("avx512f"))) float widest() { return loop<Widest>(); }
#endif

Kernel widest_kernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {16, widest};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {8, wide};
#endif
  return {4, narrow};
}

// Fused multiply-adds per second of one thread that runs until `end`.
double rate(const Kernel& kernel, Clock::time_point end, std::atomic<float>& sink) {
  const auto began = Clock::now();
  int64_t calls = 0;
  float sum = 0;
  do {
    sum += kernel.run();
    calls++;
  } while (Clock::now() < end);
  sink.store(sum, std::memory_order_relaxed);  // the loop has a result that somebody reads
  const double took = std::chrono::duration<double>(Clock::now() - began).count();
  return static_cast<double>(calls) * kRounds * kChains * kernel.width / took;
}

}  // namespace

MachinePeak measure_peak(int32_t threads, double seconds) {
  if (threads < 1 || threads > 4096) throw std::invalid_argument("measure_peak: threads is " + std::to_string(threads) + ", must be in [1, 4096]");
  if (!(seconds > 0 && seconds <= 1)) throw std::invalid_argument("measure_peak: seconds is " + std::to_string(seconds) + ", must be in (0, 1]");
  const Kernel kernel = widest_kernel();
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> pool;
  pool.reserve(rates.size());
  std::atomic<float> sink{0};
  for (double& r : rates) pool.emplace_back([&] { r = rate(kernel, end, sink); });
  for (std::thread& t : pool) t.join();
  double sum = 0;
  for (double r : rates) sum += r;
  std::string time = std::to_string(seconds);
  time.resize(std::min<size_t>(time.size(), 4));
  return {2 * sum, threads,
          "measured: " + std::to_string(threads) + (threads == 1 ? " thread" : " threads") + " × FMA loop, " + std::to_string(kernel.width) +
              "-wide float32, " + time + " s"};
}

}  // namespace reprise
