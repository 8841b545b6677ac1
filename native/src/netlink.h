// Sockets of kinds that Node does not make: generic netlink, and unix sockets that block, to be given to the
// kernel.
#pragma once
#include <napi.h>

namespace holdfast {

void ExportNetlink(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
