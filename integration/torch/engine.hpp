// The engine's two ends in torch: operators come in through a boxed fallback on DispatchKey::Fake, saved tensors through the autograd engine's default hooks.
//
// Nothing is wrapped. A thread arms itself when the first SavedVariable is built on it; a thread that is not armed pays nothing per operator.
#pragma once

namespace reprise::engine {

void install();  // idempotent; throws std::runtime_error on a torch that this library was not built for
bool installed();
void arm_this_thread();  // the first operator of the first Pass is seen only on a thread that is armed before it
void enter_keep();       // keep(): nothing saved on this thread is dropped until leave_keep
void leave_keep();
void trace_allocation(void* address, long long bytes);  // bytes < 0: freed. From the allocator's event outlet, any thread

}  // namespace reprise::engine
