// What sending large replies over a stream socket needs.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportStream(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
