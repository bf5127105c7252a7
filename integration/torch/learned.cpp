#include "integration/torch/learned.hpp"

#include <map>
#include <stdexcept>

#include "integration/torch/controller.hpp"
#include "integration/torch/planning.hpp"
#include "profiler/gradients.hpp"
#include "profiler/json_document.hpp"

namespace reprise::engine {
namespace {

constexpr size_t kMaxSteps = 1000, kMaxHashes = 4'000'000;
constexpr int64_t kMaxBytes = int64_t{1} << 50;

std::vector<uint64_t> read_hashes(const JsonField& f) {
  std::vector<uint64_t> out;
  for (const JsonField& hash : f.list(kMaxHashes)) out.push_back(hash.unsigned_integer());
  return out;
}

LearnedStep read_step(const JsonField& f) {
  f.only({"key", "match", "start_live_bytes", "derived", "settled", "profile", "frontier"});
  LearnedStep s{f.field("key").unsigned_integer(),
                read_hashes(f.field("match")),
                f.field("start_live_bytes").integer(0, kMaxBytes),
                f.field("derived").boolean(),
                f.field("settled").boolean(),
                Profile::from_json(f.field("profile").text(kMaxDocumentBytes)),
                Frontier::from_json(f.field("frontier").text(kMaxDocumentBytes))};
  if (s.match.size() != s.profile.ops().size())
    f.field("match").fail(std::to_string(s.match.size()) + " hashes, the Profile has " + std::to_string(s.profile.ops().size()) + " ops");
  for (const Plan& p : s.frontier.plans) check_plan(p, s.profile);
  return s;
}

}  // namespace

std::string Learned::to_json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const LearnedStep& s : steps)
    list.push_back({{"key", s.key},
                    {"match", s.match},
                    {"start_live_bytes", s.start_live_bytes},
                    {"derived", s.derived},
                    {"settled", s.settled},
                    {"profile", s.profile.to_json()},
                    {"frontier", s.frontier.to_json()}});
  return write_document("Learned", kVersion, {{"steps", list}, {"caught", caught}});
}

Learned Learned::from_json(const std::string& text) {
  const nlohmann::json body = read_document("Learned", kVersion, text);
  const JsonField f(body, "Learned", "body");
  f.only({"steps", "caught"});
  Learned out;
  for (const JsonField& step : f.field("steps").list(kMaxSteps)) out.steps.push_back(read_step(step));
  out.caught = read_hashes(f.field("caught"));
  return out;
}

Learned Controller::learned() const {
  Learned out;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [key, known] : known_)
      if (known.profile && !known.learning)
        out.steps.push_back({key, *known.match, known.learned_start_bytes, known.derived, known.settled, *known.profile, known.planner->known()});
  }
  out.caught = caught.places();
  return out;
}

void Controller::resume(Learned learned) {
  if (!enabled()) throw std::logic_error("reprise.resume(): nothing is being trained inside a budget; call auto_checkpoint first");
  std::map<uint64_t, Known> resumed;
  for (LearnedStep& step : learned.steps) {
    Known& known = resumed[step.key];
    set_profile(known, std::move(step.profile), step.frontier);
    known.match = std::make_shared<const std::vector<uint64_t>>(std::move(step.match));
    known.learned_start_bytes = step.start_live_bytes;
    known.appearing_bytes = reprise::appearing_bytes(*known.profile);
    known.derived = step.derived;
    known.settled = step.settled;
    known.learning = false;
    known.learning_seconds = known.profile->data().pass_seconds;
  }
  for (uint64_t place : learned.caught) caught.add(place);
  std::lock_guard<std::mutex> lock(mutex_);
  known_ = std::move(resumed);
  generation_++;
}

}  // namespace reprise::engine
