#include "descriptors.h"

#include <fcntl.h>

#include <cerrno>

#include "arguments.h"
#include "system_error.h"

namespace holdfast {
namespace {

Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  if (!Descriptor(info, &fd)) return env.Undefined();
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    SystemError(env, errno, "fcntl").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return Napi::Number::New(env, copy);
}

}  // namespace

void ExportDescriptors(Napi::Env env, Napi::Object exports) {
  exports.Set("duplicate", Napi::Function::New(env, Duplicate));
}

}  // namespace holdfast
