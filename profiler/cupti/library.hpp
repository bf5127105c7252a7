// Cupti: the functions of libcupti that we use, opened at run time. Nothing links it: the library is torch's own, or the toolkit's, and may be missing.
//
// Threads: open() from any thread; the table is immutable. Failure: open() is nullptr, and why() says in words what could not be had.
#pragma once

#include <cupti.h>

#include <string>

namespace reprise::cupti {

#define REPRISE_CUPTI_FUNCTIONS(each)                                                                                                                   \
  each(cuptiSubscribe) each(cuptiUnsubscribe) each(cuptiActivityRegisterCallbacks) each(cuptiActivityEnable) each(cuptiActivityDisable)                 \
      each(cuptiActivityFlushAll) each(cuptiActivityGetNextRecord) each(cuptiActivityGetNumDroppedRecords) each(cuptiActivityPushExternalCorrelationId) \
          each(cuptiActivityPopExternalCorrelationId) each(cuptiGetResultString)

struct Cupti {
#define REPRISE_CUPTI_MEMBER(name) decltype(&::name) name = nullptr;
  REPRISE_CUPTI_FUNCTIONS(REPRISE_CUPTI_MEMBER)
#undef REPRISE_CUPTI_MEMBER

  static const Cupti* open();
  static const std::string& why();
  std::string words(CUptiResult result) const;
};

}  // namespace reprise::cupti
