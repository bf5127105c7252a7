#include "integration/torch/cuda/routes.hpp"

#include <algorithm>

namespace reprise::cuda {

// Which of several that want the stream is taken stays native's to say.
Routes::Filter Routes::begin(c10::DeviceIndex device, Pool pool, Filter filter) {
  const Hold hold(lock_);
  const std::uint64_t number = ++made_;
  routes_.push_back({device, pool, filter, number});
  count_ = routes_.size();
  return [number, filter = std::move(filter)](cudaStream_t stream) { return Passing::is(number, stream) || filter(stream); };
}

void Routes::end(c10::DeviceIndex device, Pool pool) {
  const Hold hold(lock_);
  const auto ended = std::find_if(routes_.begin(), routes_.end(), [&](const Route& route) { return route.device == device && route.pool == pool; });
  if (ended != routes_.end()) routes_.erase(ended);
  count_ = routes_.size();
}

std::uint64_t Routes::asked(c10::DeviceIndex device, cudaStream_t stream) {
  const Hold hold(lock_);
  for (const Route& route : routes_)
    if (route.device == device && route.filter(stream)) return route.number;
  return 0;
}

}  // namespace reprise::cuda
