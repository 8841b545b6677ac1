// Time since the machine was booted.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportClock(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
