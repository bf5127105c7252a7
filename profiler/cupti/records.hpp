// The layouts of CUPTI's records in the headers at hand: they are numbered anew when fields are appended, and only the newest is sure to be declared.
#pragma once

#include <cupti.h>

namespace reprise::cupti {

#if CUPTI_API_VERSION >= 130200
using KernelRecord = CUpti_ActivityKernel11;
#elif CUPTI_API_VERSION >= 130000
using KernelRecord = CUpti_ActivityKernel10;
#else
using KernelRecord = CUpti_ActivityKernel9;
#endif
using CopyRecord = CUpti_ActivityMemcpy6;
using FillRecord = CUpti_ActivityMemset4;

}  // namespace reprise::cupti
