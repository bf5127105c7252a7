#include "policy/schemes.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>

namespace reprise {
namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }

constexpr const char* kKnown = "none, full, chunks(C), sqrt, per_block, random(SEED) or auto";
constexpr int64_t kMaxCount = 1'000'000'000;

[[noreturn]] void fail(const std::string& name, const std::string& why) { throw std::invalid_argument("scheme: \"" + name + "\" " + why); }

int64_t read_count(const std::string& name, const std::string& text, const char* what, int64_t low) {
  const bool digits = !text.empty() && text.size() <= 18 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits)
    fail(name, std::string("has ") + what + " \"" + text + "\", expected a whole number in [" + std::to_string(low) + ", " + std::to_string(kMaxCount) + "]");
  const int64_t n = std::stoll(text);
  if (n < low || n > kMaxCount)
    fail(name, std::string("has ") + what + " " + text + ", must be in [" + std::to_string(low) + ", " + std::to_string(kMaxCount) + "]");
  return n;
}

bool read_hold_inside(const std::string& name, const std::string& text) {
  if (text == "hold_inside=True") return true;
  if (text == "hold_inside=False") return false;
  fail(name, "has argument \"" + text + "\", expected hold_inside=True or hold_inside=False");
}

// First Op of each unit after the first.
std::vector<int32_t> unit_starts(const Instance& in, const std::vector<Block>& blocks) {
  if (blocks.size() < 2) return block_borders(*in.profile, blocks);
  std::vector<int32_t> out;
  for (size_t i = 1; i < blocks.size(); i++) out.push_back(blocks[i].first_op);
  return out;
}

void keep_border(const Instance& in, int32_t op, Choice& c) {
  c.cut[at(op)] = 1;
  for (int32_t v : crossing_values(*in.profile, op)) c.keep[at(v)] = 1;
}

void cut_at(const std::vector<int32_t>& ops, Choice& c) {
  for (int32_t o : ops) c.cut[at(o)] = 1;
}

Choice chunks(const Instance& in, const std::vector<Block>& blocks, int64_t count, bool hold_inside) {
  Choice c(in);
  const auto starts = unit_starts(in, blocks);
  const auto units = static_cast<int64_t>(starts.size()) + 1;
  for (int64_t k = 1; k < std::min(count, units); k++) {
    const int64_t unit = k * units / std::min(count, units);
    keep_border(in, starts[static_cast<size_t>(unit - 1)], c);
  }
  if (!hold_inside) cut_at(block_borders(*in.profile, blocks), c);
  return c;
}

Choice per_block(const Instance& in, const std::vector<Block>& blocks) {
  Choice c(in);
  for (int32_t o : block_borders(*in.profile, blocks)) keep_border(in, o, c);
  if (blocks.size() < 2) return c;
  for (int32_t v = 0; v < in.values(); v++) {
    const int32_t o = in.last_maker(v);
    const bool inside = std::any_of(blocks.begin(), blocks.end(), [&](const Block& b) { return b.first_op <= o && o <= b.last_op; });
    if (!inside && in.saved[at(v)]) c.keep[at(v)] = 1;
  }
  return c;
}

Choice random_choice(const Instance& in, int64_t seed) {
  std::mt19937_64 rng(static_cast<uint64_t>(seed));
  const auto percent = [&] { return rng() % 100; };
  Choice c(in);
  const uint64_t keep = percent(), memo = percent(), cut = percent();
  for (int32_t v = 0; v < in.values(); v++) {
    if (percent() < keep) c.keep[at(v)] = 1;
    c.memo[at(v)] = percent() < memo ? static_cast<uint8_t>(1 + percent() % 3) : 0;
  }
  for (uint8_t& x : c.cut) x = percent() < cut ? static_cast<uint8_t>(1 + percent() % 4) : 0;
  const uint64_t pack = percent();
  for (int32_t v = 0; v < in.values(); v++)
    if (in.packed_bytes[at(v)] > 0) c.pack[at(v)] = percent() < pack;
  return c;
}

}  // namespace

Scheme Scheme::parse(const std::string& name) {
  const size_t open = name.find('(');
  const std::string word = name.substr(0, open);
  std::string arguments;
  if (open != std::string::npos) {
    if (name.back() != ')') fail(name, "has no closing parenthesis");
    arguments = name.substr(open + 1, name.size() - open - 2);
  }
  const size_t comma = arguments.find(", ");
  const std::string first = arguments.substr(0, comma), second = comma == std::string::npos ? "" : arguments.substr(comma + 2);
  if (word == "chunks") {
    const int64_t count = read_count(name, first, "chunk count", 1);
    return {Kind::kChunks, count, second.empty() || read_hold_inside(name, second)};
  }
  if (word == "random") return {Kind::kRandom, read_count(name, arguments, "seed", 0), true};
  if (word == "sqrt") return {Kind::kSqrt, 0, open == std::string::npos || read_hold_inside(name, arguments)};
  const bool plain = open == std::string::npos;
  if (plain && word == "none") return {Kind::kNone, 0, true};
  if (plain && word == "full") return {Kind::kFull, 0, true};
  if (plain && word == "per_block") return {Kind::kPerBlock, 0, true};
  if (plain && word == "auto") return {Kind::kAuto, 0, true};
  fail(name, std::string("is unknown, expected ") + kKnown);
}

std::string Scheme::name() const {
  switch (kind) {
    case Kind::kNone: return "none";
    case Kind::kFull: return "full";
    case Kind::kChunks: return "chunks(" + std::to_string(count) + (hold_inside ? ")" : ", hold_inside=False)");
    case Kind::kSqrt: return hold_inside ? "sqrt" : "sqrt(hold_inside=False)";
    case Kind::kPerBlock: return "per_block";
    case Kind::kRandom: return "random(" + std::to_string(count) + ")";
    case Kind::kAuto: return "auto";
  }
  return "";
}

Choice choose(const Scheme& scheme, const Instance& in, const std::vector<Block>& blocks) {
  Choice c(in);
  switch (scheme.kind) {
    case Scheme::Kind::kNone:
      for (int32_t v = 0; v < in.values(); v++) c.keep[at(v)] |= in.saved[at(v)];
      return c;
    case Scheme::Kind::kFull: cut_at(block_borders(*in.profile, blocks), c); return c;
    case Scheme::Kind::kChunks: return chunks(in, blocks, scheme.count, scheme.hold_inside);
    case Scheme::Kind::kSqrt: {
      const auto units = static_cast<double>(unit_starts(in, blocks).size() + 1);
      return chunks(in, blocks, std::max<int64_t>(1, std::llround(std::sqrt(units))), scheme.hold_inside);
    }
    case Scheme::Kind::kPerBlock: return per_block(in, blocks);
    case Scheme::Kind::kRandom: return random_choice(in, scheme.count);
    case Scheme::Kind::kAuto: break;
  }
  throw std::invalid_argument("scheme: \"auto\" needs a limit, ask plan()");
}

Plan scheme_plan(const Profile& profile, const std::string& name) {
  const Scheme scheme = Scheme::parse(name);
  const Instance in(profile);
  return Pricer(in).plan(choose(scheme, in, find_blocks(profile)), scheme.name(), kNoLimit);
}

}  // namespace reprise
