#pragma once
#include <napi.h>

#include "system_error.h"

namespace holdfast {

// Calls `done` with nothing or with the error of a system call, from the event loop. What it throws is an uncaught exception:
// of a call that another thread caused Node would only warn. An environment that is being ended is told nothing.
inline void Answer(Napi::Env env, napi_value done, int error, const char* call) {
  const napi_value result = error == 0 ? env.Undefined() : SystemError(env, error, call).Value();
  if (napi_call_function(env, env.Undefined(), done, 1, &result, nullptr) == napi_ok) return;
  napi_value thrown;
  if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok) napi_fatal_exception(env, thrown);
}

}  // namespace holdfast
