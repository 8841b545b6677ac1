// Threads that only wait for the disk (decision 38). A flush on one of them holds none of libuv's, which reads and writes
// need, and does not go through the lock of that pool's queue, on which whoever is woken waits for who woke it.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportSyncThreads(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
