// Lifetimes from files, for the benchmarks that replay them: a header line `id,lower,upper,size`, then one allocation a line (birth, death, bytes).
// Failure: std::invalid_argument, naming the file and the line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "policy/placement.hpp"

namespace reprise {

inline std::vector<Lifetime> read_lifetimes(const std::filesystem::path& name) {
  std::ifstream file(name);
  std::string line;
  if (!std::getline(file, line) || line.rfind("id,lower,upper,size", 0) != 0) throw std::invalid_argument(name.string() + ": no file of lifetimes");
  std::vector<Lifetime> out;
  while (std::getline(file, line)) {
    Lifetime one;
    if (std::sscanf(line.c_str(), "%*d,%ld,%ld,%ld", &one.birth, &one.death, &one.bytes) != 3) throw std::invalid_argument(name.string() + ": " + line);
    out.push_back(one);
  }
  return out;
}

using LifetimeEvents = std::vector<std::tuple<std::int64_t, bool, std::size_t>>;  // when, birth, which; in order, frees first

inline LifetimeEvents events_of(const std::vector<Lifetime>& lifetimes) {
  LifetimeEvents events;
  for (std::size_t i = 0; i < lifetimes.size(); i++) {
    events.emplace_back(lifetimes[i].birth, true, i);
    events.emplace_back(lifetimes[i].death, false, i);
  }
  std::sort(events.begin(), events.end());
  return events;
}

}  // namespace reprise
