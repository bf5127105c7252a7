#include "integration/torch/streams.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/cuda_memory.hpp"

namespace reprise::engine {

std::optional<c10::Stream> current_stream() {
  const c10::Device device = budgeted_device();
  if (device.is_cpu()) return std::nullopt;
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

bool is_capturing() { return !budget_is_on_cpu() && cuda_memory()->is_capturing(); }

void used_on(const c10::Storage& storage, const std::optional<c10::Stream>& stream) {
  if (!stream || storage.device() != stream->device()) return;
  c10::impl::VirtualGuardImpl(stream->device_type()).recordDataPtrOnStream(storage.data_ptr(), *stream);
}

void StreamChain::go_to(const std::optional<c10::Stream>& stream) {
  if (!stream || stream == at_) return;
  c10::Event event(stream->device_type());
  event.record(*at_);
  event.block(*stream);
  c10::impl::VirtualGuardImpl(stream->device_type()).exchangeStream(*stream);
  at_ = stream;
}

std::shared_ptr<const Ready> Ready::here() {
  const auto stream = current_stream();
  return stream ? std::shared_ptr<const Ready>(new Ready(*stream)) : nullptr;
}

void Ready::before(const std::optional<c10::Stream>& consumer) const {
  if (consumer && *consumer != stream_) event_.block(*consumer);
}

}  // namespace reprise::engine
