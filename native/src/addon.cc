#include <napi.h>

#include "arguments.h"
#include "clock.h"
#include "crc32c.h"
#include "descriptors.h"
#include "file_io.h"
#include "netlink.h"
#include "stream.h"
#include "sync_threads.h"

namespace holdfast {
namespace {

Napi::Value JsCrc32c(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Bytes bytes;
  int64_t start, end, seed;
  if (!ByteArray(env, info[0], "bytes", &bytes) ||
      !Integer(info, 1, "start", 0, kIntegerMax, &start) ||
      !Integer(info, 2, "end", static_cast<double>(start), kIntegerMax, &end) ||
      !Integer(info, 3, "seed", 0, 4294967295.0, &seed) ||
      !Inside(env, "bytes", start, end - start, bytes.length)) {
    return env.Undefined();
  }
  const auto length = static_cast<size_t>(end - start);
  return Napi::Number::New(env, Crc32c(static_cast<uint32_t>(seed), bytes.data + start, length));
}

Napi::Value JsCrc32cBy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto& methods = Crc32cMethods();
  Bytes bytes;
  int64_t method, start, end, seed;
  if (!Integer(info, 0, "method", 0, static_cast<double>(methods.size() - 1), &method) ||
      !ByteArray(env, info[1], "bytes", &bytes) ||
      !Integer(info, 2, "start", 0, kIntegerMax, &start) ||
      !Integer(info, 3, "end", static_cast<double>(start), kIntegerMax, &end) ||
      !Integer(info, 4, "seed", 0, 4294967295.0, &seed) ||
      !Inside(env, "bytes", start, end - start, bytes.length)) {
    return env.Undefined();
  }
  const auto run = methods[static_cast<size_t>(method)].run;
  const auto length = static_cast<size_t>(end - start);
  return Napi::Number::New(env, ~run(~static_cast<uint32_t>(seed), bytes.data + start, length));
}

Napi::Array Crc32cKinds(Napi::Env env) {
  const auto& methods = Crc32cMethods();
  auto kinds = Napi::Array::New(env, methods.size());
  for (uint32_t i = 0; i < methods.size(); i++) kinds.Set(i, Napi::String::New(env, methods[i].kind));
  return kinds;
}

Napi::Value JsCrc32cBlocks(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Bytes bytes;
  int64_t offset, blocks, out_index;
  uint32_t* out;
  size_t out_count;
  if (!ByteArray(env, info[0], "bytes", &bytes) ||
      !Integer(info, 1, "offset", 0, kIntegerMax, &offset) ||
      !Integer(info, 2, "blockCount", 0, 1 << 30, &blocks) ||
      !WordArray(info, 3, "out", &out, &out_count) ||
      !Integer(info, 4, "outIndex", 0, kIntegerMax, &out_index) ||
      !Inside(env, "bytes", offset, blocks * kBlockBytes, bytes.length) ||
      !Inside(env, "out", out_index, blocks, out_count)) {
    return env.Undefined();
  }
  for (int64_t i = 0; i < blocks; i++) {
    out[out_index + i] = Crc32c(0, bytes.data + offset + i * kBlockBytes, kBlockBytes);
  }
  return env.Undefined();
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("crc32c", Napi::Function::New(env, JsCrc32c));
  exports.Set("crc32cBlocks", Napi::Function::New(env, JsCrc32cBlocks));
  exports.Set("crc32cBy", Napi::Function::New(env, JsCrc32cBy));
  exports.Set("crc32cKinds", Crc32cKinds(env));
  ExportClock(env, exports);
  ExportDescriptors(env, exports);
  ExportFileIo(env, exports);
  ExportNetlink(env, exports);
  ExportStream(env, exports);
  ExportSyncThreads(env, exports);
  return exports;
}

}  // namespace
}  // namespace holdfast

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) {
  return holdfast::Init(env, exports);
}

NODE_API_MODULE(holdfast, InitAddon)
