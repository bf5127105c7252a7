// Agreement: the ranks of one job follow one Plan, and learn together when one of them cannot train within its budget.
//
// Words: the ranks are the processes of torch's default process group; a ballot is what one rank says of the step it is about to run; a round is a Pass
// at whose start ranks may speak: the first kFirstRounds Passes, then every kRoundEvery-th. Between rounds nobody plans and nobody speaks.
//
// A1  every rank runs the same number of Passes, so all come to the same rounds (agree=False is for ranks that do not)
// A2  without anybody who wants a new Plan a round is one number through the store; collectives of the program's process groups are never used
// A3  what follows from the ballots is worked out by every rank alone, from the same ballots: the tightest rank's Plan, if it fits on all; else the
//     next tightest's. Ranks whose steps differ keep their own Plans; a rank that is still learning makes all wait for the next round
// A4  one rank whose budget cannot be met: all raise its error at the start of the same Pass
// Failure: a rank that does not come in time raises on all others (the store's timeout). Threads: any; a round holds no mutex of the engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "policy/plan.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

// How ranks speak. Every member but rank() and world() waits for all ranks, and throws std::runtime_error naming one that did not come in time.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;
  virtual bool any(bool mine) = 0;                                       // is it true of any rank
  virtual std::vector<std::string> gather(const std::string& mine) = 0;  // by rank
};

// Where ranks come from: the Python package knows torch's store. nullptr: the process is alone.
using RanksFinder = std::function<std::shared_ptr<Ranks>()>;
void set_ranks_finder(RanksFinder finder);

uint64_t hash_of(const Plan& plan);             // what is kept and what runs again, in order; not what it was predicted to cost
uint64_t structure_of(const Profile& profile);  // Ops, what they read and make; not their shapes: equal structures can follow the same Plan

struct Ballot {
  bool learning = false;  // has no Profile of this step yet
  std::string refused;    // why the budget cannot be met, or ""
  int64_t smallest_budget_bytes = 0;
  uint64_t structure = 0;
  uint64_t plan = 0;     // hash; 0: runs without one
  double tightness = 0;  // bytes allowed / bytes of the step when everything is kept
  std::string to_json() const;
  static Ballot from_json(const std::string& text);
};

// What ranks agreed on; for the report.
struct Agreed {
  int rank = 0, world = 1;
  bool one_plan = false;
  int decided_by = -1;  // whose Plan it is
  uint64_t plan = 0, structure = 0;
  std::string note;  // why there is not one Plan, or ""
};

enum class Outcome : uint8_t { kOnePlan, kOwnPlans, kNoPlan, kWait, kRefused };
// A3, A4: the same on every rank. order: with kOnePlan whose Plan to try, the tightest first; with kRefused the ranks that refuse.
Outcome outcome_of(const std::vector<Ballot>& ballots, std::vector<int>& order);

// When the ranks speak. Threads: any.
class Agreement {
 public:
  void reset(bool wanted);               // auto_checkpoint or undo
  std::shared_ptr<Ranks> next_pass();    // the Pass that begins is a round: its ranks; else nullptr
  std::shared_ptr<Ranks> ranks() const;  // seen at the last round; nullptr: alone

 private:
  static constexpr int64_t kFirstRounds = 16, kRoundEvery = 16;
  mutable std::mutex mutex_;
  bool wanted_ = false;
  int64_t passes_ = 0;
  std::shared_ptr<Ranks> ranks_;
};

}  // namespace reprise::engine
