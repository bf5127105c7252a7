// A small tracer: builds the Trace of a made-up model, forward and backward, as the engine would hand it over. Every allocation has an address of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "profiler/trace.hpp"

namespace reprise::testing {

class Tracer {
 public:
  Trace trace;

  int32_t outside(int64_t bytes) {
    TraceValue v;
    v.bytes = bytes;
    v.outside = true;
    return add(v);
  }

  // One Op that reads `inputs` and makes one Value of `bytes`, with a temporary of `temporary` bytes. beside > 0: and a second one (the next number) of so many.
  int32_t op(const std::string& name, std::vector<int32_t> inputs, int64_t bytes, double seconds = 1, int64_t temporary = 0, int64_t beside = 0) {
    const auto number = static_cast<int32_t>(trace.ops.size());
    TraceOp o;
    o.name = name;
    o.inputs = std::move(inputs);
    o.forward_seconds = seconds;
    for (char c : name + "/" + std::to_string(bytes) + "/" + std::to_string(seconds)) o.signature = o.signature * 131 + static_cast<uint64_t>(c);
    mark(Mark::kOpBegin, number);
    if (temporary > 0) allocate(temporary, 1'000'000'000 + number);
    TraceValue v;
    v.bytes = bytes;
    v.producer = number;
    const int32_t made = add(v);
    allocate(bytes, address(made));
    if (temporary > 0) mark(Mark::kFree, 1'000'000'000 + number, temporary);
    mark(Mark::kBorn, made, address(made));
    o.outputs = {made};
    if (beside > 0) {
      TraceValue second;
      second.bytes = beside;
      second.producer = number;
      o.outputs.push_back(add(second));
      allocate(beside, address(made + 1));
      mark(Mark::kBorn, made + 1, address(made + 1));
    }
    trace.ops.push_back(std::move(o));
    mark(Mark::kOpEnd, number);
    return made;
  }

  // Overwrites `target` in place; the new version stands for the storage from here on.
  int32_t in_place(const std::string& name, int32_t target, std::vector<int32_t> inputs, double seconds = 1) {
    const auto number = static_cast<int32_t>(trace.ops.size());
    TraceOp o;
    o.name = name;
    o.inputs = std::move(inputs);
    o.inputs.insert(o.inputs.begin(), target);
    o.forward_seconds = seconds;
    for (char c : name) o.signature = o.signature * 131 + static_cast<uint64_t>(c);
    mark(Mark::kOpBegin, number);
    TraceValue v;
    v.bytes = trace.values[size_t(target)].bytes;
    v.producer = number;
    const int32_t made = add(v);
    addresses_[size_t(made)] = addresses_[size_t(target)];
    mark(Mark::kBorn, made, address(made));
    o.overwrites = {{target, made}};
    trace.ops.push_back(std::move(o));
    mark(Mark::kOpEnd, number);
    return made;
  }

  void save(int32_t v) {
    if (trace.values[size_t(v)].outside || trace.values[size_t(v)].saved) return;
    trace.values[size_t(v)].saved = true;
    mark(Mark::kSaved, v);
  }

  // The forward and the user let go of v; unless autograd keeps it, its storage is freed.
  void gone(int32_t v) {
    mark(Mark::kGone, v);
    if (!trace.values[size_t(v)].saved) mark(Mark::kFree, address(v), trace.values[size_t(v)].bytes);
  }

  void forward_end() { mark(Mark::kForwardEnd, 0); }

  // One backward node: asks for `uses` in order, allocates and frees `temporary`, then releases `releases`.
  void node(const std::vector<int32_t>& uses, const std::vector<int32_t>& releases, int64_t temporary = 0) {
    for (int32_t v : uses)
      if (!trace.values[size_t(v)].outside) mark(Mark::kUnpack, v);
    const int64_t place = 2'000'000'000 + static_cast<int64_t>(trace.events.size());
    if (temporary > 0) {
      allocate(temporary, place);
      mark(Mark::kFree, place, temporary);
    }
    for (int32_t v : releases) {
      if (trace.values[size_t(v)].outside) continue;
      mark(Mark::kRelease, v);
      mark(Mark::kFree, address(v), trace.values[size_t(v)].bytes);
    }
  }

  Trace finish() {
    mark(Mark::kPassEnd, 0);
    trace.signature = 42;
    return trace;
  }

  void mark(Mark m, int64_t a, int64_t b = 0) { trace.events.push_back({m, a, b}); }
  void allocate(int64_t bytes, int64_t where) { mark(Mark::kAllocate, where, bytes); }
  int64_t address(int32_t v) const { return addresses_[size_t(v)]; }

 private:
  int32_t add(const TraceValue& v) {
    trace.values.push_back(v);
    addresses_.push_back(1000 + static_cast<int64_t>(addresses_.size()));
    return static_cast<int32_t>(trace.values.size()) - 1;
  }
  std::vector<int64_t> addresses_;
};

// N layers of Linear and ReLU: the ReLU's output a_i is saved (by itself and by the next Linear), the Linear's output is not. One layer = `bytes`, 2 s.
// `last_saved`: whether anything asks for a_N.
inline Trace chain(int32_t layers, int64_t bytes, bool last_saved = true) {
  Tracer t;
  const int32_t weight = t.outside(bytes);
  std::vector<int32_t> a = {t.outside(bytes)};
  for (int32_t i = 0; i < layers; i++) {
    const int32_t z = t.op("addmm", {a.back(), weight}, bytes);
    const int32_t r = t.op("relu", {z}, bytes);
    if (i + 1 < layers || last_saved) t.save(r);
    t.gone(z);
    if (i > 0) t.gone(a.back());
    a.push_back(r);
  }
  t.gone(a.back());
  t.forward_end();
  for (int32_t i = layers; i > 0; i--)
    if (i < layers || last_saved) t.node({a[size_t(i)]}, {a[size_t(i)]});
  return t.finish();
}

// A pre-norm Transformer: per Block norm, qkv, attention, projection, add, norm, up, gelu, down, add.
inline Trace transformer(int32_t layers, int64_t d) {
  Tracer t;
  const int32_t w = t.outside(d), ids = t.outside(8);
  int32_t x = t.op("embedding", {ids, w}, d);
  std::vector<std::vector<int32_t>> nodes;
  for (int32_t l = 0; l < layers; l++) {
    const int32_t n1 = t.op("native_layer_norm", {x}, d, 0.5), qkv = t.op("addmm", {n1, w}, 3 * d, 3);
    const int32_t y = t.op("attention", {qkv}, d, 4, d / 2), o = t.op("addmm", {y, w}, d, 1), x1 = t.op("add", {x, o}, d, 0.2);
    const int32_t n2 = t.op("native_layer_norm", {x1}, d, 0.5), up = t.op("addmm", {n2, w}, 4 * d, 4);
    const int32_t g = t.op("gelu", {up}, 4 * d, 1), down = t.op("addmm", {g, w}, d, 4), x2 = t.op("add", {x1, down}, d, 0.2);
    for (int32_t v : {x, n1, qkv, y, x1, n2, up, g}) t.save(v);
    for (int32_t v : {x, n1, qkv, y, o, x1, n2, up, g, down}) t.gone(v);
    for (auto& node : std::vector<std::vector<int32_t>>{{x}, {n1}, {qkv, y}, {x1}, {n2}, {up}, {g}}) nodes.push_back(node);
    x = x2;
  }
  t.save(x);
  t.gone(x);
  nodes.push_back({x});
  t.forward_end();
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) t.node(*it, *it, d);
  return t.finish();
}

// A random graph with temporaries, in-place Ops, unsaved Values and several uses.
inline Trace random_graph(uint64_t seed, int32_t ops) {
  const auto next = [&seed](uint64_t n) { return (seed = seed * 6364136223846793005ULL + 1442695040888963407ULL, (seed >> 33) % n); };
  Tracer t;
  std::vector<int32_t> alive = {t.outside(64)}, made;
  for (int32_t i = 0; i < ops; i++) {
    std::vector<int32_t> in = {alive[size_t(next(alive.size()))], alive.back()};
    if (next(2)) in.push_back(alive[size_t(next(alive.size()))]);
    int32_t v = t.op(std::string(1, static_cast<char>('a' + next(4))), in, static_cast<int64_t>(64 * (1 + next(20))), 1.0 + static_cast<double>(next(5)),
                     static_cast<int64_t>(next(3) * 320));
    if (next(5) == 0) v = t.in_place("g_", v, {alive[size_t(next(alive.size()))]});
    if (next(3)) t.save(v);
    alive.push_back(v);
    made.push_back(v);
    if (alive.size() > 4) {  // let go early, so that the peak may lie in backward
      if (!t.trace.values[size_t(alive[0])].outside) t.gone(alive[0]);
      alive.erase(alive.begin());
    }
  }
  for (int32_t v : alive)
    if (!t.trace.values[size_t(v)].outside) t.gone(v);
  t.forward_end();
  std::vector<int32_t> saved;
  for (int32_t v : made)
    if (t.trace.values[size_t(v)].saved) saved.push_back(v);
  for (size_t i = saved.size(); i-- > 0;) {
    std::vector<int32_t> uses = {saved[i]};
    if (i > 0 && next(2)) uses.push_back(saved[size_t(next(i))]);
    t.node(uses, {saved[i]}, static_cast<int64_t>(next(3) * 640));
  }
  return t.finish();
}

// The same step where about every third Value has a packed form, with seconds of its own.
inline Trace with_packing(Trace trace, uint64_t seed) {
  const auto next = [&seed](uint64_t n) { return (seed = seed * 6364136223846793005ULL + 1442695040888963407ULL, (seed >> 33) % n); };
  for (TraceValue& v : trace.values)
    if (!v.outside && next(3) == 0)
      v.packed = {Packing::kBits, v.bytes / 32, 0.125 * static_cast<double>(1 + next(3)), next(2) ? 0 : 0.0625 * static_cast<double>(1 + next(3))};
  return trace;
}

// A random graph that lets go of everything after its last use, so that what is kept decides the peak: skips, unsaved Values, sizes and seconds of all kinds.
inline Trace tight_graph(uint64_t seed, int32_t ops) {
  const auto next = [&seed](uint64_t n) { return (seed = seed * 6364136223846793005ULL + 1442695040888963407ULL, (seed >> 33) % n); };
  std::vector<std::vector<int32_t>> reads(static_cast<size_t>(ops));  // op i makes Value i; -1: the input
  std::vector<int32_t> last(static_cast<size_t>(ops), -1);
  for (int32_t i = 0; i < ops; i++) {
    reads[size_t(i)] = {i - 1};
    if (i > 1 && next(3) == 0) reads[size_t(i)].push_back(static_cast<int32_t>(next(static_cast<uint64_t>(i - 1))));
    for (int32_t r : reads[size_t(i)])
      if (r >= 0) last[size_t(r)] = i;
  }
  Tracer t;
  const int32_t input = t.outside(64);
  std::vector<int32_t> made, saved;
  for (int32_t i = 0; i < ops; i++) {
    std::vector<int32_t> in;
    for (int32_t r : reads[size_t(i)]) in.push_back(r < 0 ? input : made[size_t(r)]);
    made.push_back(t.op("op", in, static_cast<int64_t>(64 * (1 + next(8))), 1.0 + static_cast<double>(next(8))));
    if (i + 1 == ops || next(4)) t.save(made.back()), saved.push_back(made.back());
    for (int32_t v = 0; v <= i; v++)
      if (last[size_t(v)] == i || (v == i && last[size_t(v)] < 0)) t.gone(made[size_t(v)]);
  }
  t.forward_end();
  for (size_t i = saved.size(); i-- > 0;)
    t.node(i > 0 && next(2) ? std::vector<int32_t>{saved[i], saved[i - 1]} : std::vector<int32_t>{saved[i]}, {saved[i]}, static_cast<int64_t>(64 * next(3)));
  return t.finish();
}

}  // namespace reprise::testing
