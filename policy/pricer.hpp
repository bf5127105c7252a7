// Pricer: the exact cost of a choice: bytes at every moment of the Pass and seconds of everything that runs again.
//
// A Choice says per Value keep, pack (if it is not kept and has a packed form) or neither and a memo level, and per Op the level of a cut before it (0: none).
// The Groups follow from it:
//   when backward unpacks t and t is not there, the closure of t's makers runs, stopping at Values that are there (kept or retained);
//   what is packed is unpacked instead, before the first Op of the Group that reads it (t itself: without any Op);
//   it retains t, and of what it makes or unpacks each v that autograd still asks for unless a cut of a level above v's memo lies between v and t. The rest dies after
//   its last use. So keep is the outermost level of checkpoints, and memo levels k … 0 are those nested in it: Groups of Blocks, Blocks, parts of Blocks.
//
// M1  level(c) = Σ bytes of Values live in c + max(base_max(c), base_start(c) + highest level inside the Group that runs in c)
// M2  live: [birth, gone) always; kept and (saved or a Source): up to max(last release, end of the last Group that reads it); retained: from the end of its Group to its last release
// M3  seconds = Σ over Groups [Σ over their Ops (replay seconds + overhead) + Σ over what they unpack (unpack seconds + overhead)] + Σ packed (pack seconds)
// M4  every must_keep Value is kept, whatever the Choice says
// M5  a packed form lives from the end of its Value's last maker to max(last release, end of the last Group that reads or unpacks the Value)
// Cost: one pass over Ops, Values, cells and replayed Ops; no allocation after the first call. Threads: one Pricer per thread.
#pragma once

#include <cstdint>
#include <vector>

#include "policy/plan.hpp"
#include "profiler/profile.hpp"
#include "profiler/timeline.hpp"

namespace reprise {

inline constexpr int64_t kNoLimit = int64_t{1} << 50;

// The Profile as flat arrays, shared by all Pricers of one planning run. Immutable.
struct Instance {
  explicit Instance(const Profile& profile, double overhead_seconds = 6e-6);

  const Profile* profile;
  Timeline time;
  double overhead_seconds;
  std::vector<double> seconds;                                         // per Op, when it runs again
  std::vector<int64_t> rise, bytes;                                    // per Op, per Value
  std::vector<int32_t> read_at, read, maker_at, maker, made_at, made;  // ragged: Op -> Values, Value -> Ops, Op -> Values
  std::vector<uint8_t> saved, must_keep;
  std::vector<int64_t> packed_bytes;                 // per Value; 0: it has no packed form
  std::vector<double> pack_seconds, unpack_seconds;  // per Value; where it was never unpacked, packing's
  int32_t ops() const { return static_cast<int32_t>(rise.size()); }
  int32_t values() const { return static_cast<int32_t>(bytes.size()); }
  int32_t last_maker(int32_t v) const { return maker_at[size_t(v)] == maker_at[size_t(v) + 1] ? -1 : maker[size_t(maker_at[size_t(v) + 1]) - 1]; }
};

struct Choice {
  static constexpr uint8_t kLevels = 16;
  std::vector<uint8_t> keep, pack, memo, cut;  // per Value, per Value, per Value (< kLevels), per Op (<= kLevels)
  explicit Choice(const Instance& instance);   // keeps what must be kept, nothing else
  bool operator==(const Choice&) const = default;
  auto operator<=>(const Choice&) const = default;
};

class Pricer {
 public:
  explicit Pricer(const Instance& instance);

  void price(const Choice& choice, int64_t limit_bytes, bool record = false);
  int64_t peak_bytes() const { return peak_; }
  int64_t excess_bytes() const { return excess_; }  // Σ over cells of what lies above the limit
  double seconds() const { return seconds_; }
  const std::vector<int64_t>& levels() const { return level_; }              // per cell
  int64_t operations() const { return operations_; }                         // Ops that run again
  const std::vector<Group>& groups() const { return groups_; }               // of the last price with record: Profile Values
  Plan plan(const Choice& choice, std::string scheme, int64_t limit_bytes);  // Trace Values, checked by Plan::validate

 private:
  void begin(const Choice& choice);
  void run_group(int32_t trigger, int32_t cell, bool record);
  void collect(int32_t trigger, int32_t cell);
  void bring_back(int32_t v, int32_t trigger, int32_t cell);
  bool retains(int32_t v, int32_t trigger, int32_t cell) const;
  void walk(int32_t trigger, int32_t cell);
  void add_packed();
  void sum_levels(const Choice& choice, int64_t limit_bytes);
  bool is_there(int32_t v, int32_t cell) const { return until_[size_t(v)] > cell; }

  const Instance& in_;
  std::vector<int64_t> change_, extra_, level_;              // per cell
  std::vector<int32_t> until_, last_source_, reach_, uses_;  // per Value; reach_: first Op after it that a cut above its memo precedes
  std::vector<int32_t> source_stamp_, op_stamp_, made_stamp_, unpack_stamp_, todo_, group_, sources_, retained_, unpacked_;
  std::vector<uint8_t> packed_;  // per Value
  int64_t walk_level_ = 0, walk_top_ = 0;
  std::vector<Group> groups_;
  int32_t tick_ = 0;
  int64_t peak_ = 0, excess_ = 0, operations_ = 0;
  double seconds_ = 0;
};

}  // namespace reprise
