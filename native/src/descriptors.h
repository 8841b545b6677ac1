// Descriptors of sockets on their way from one thread of this process to another.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportDescriptors(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
