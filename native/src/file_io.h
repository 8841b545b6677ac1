// Positioned file I/O, on the calling thread and on libuv's.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportFileIo(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
