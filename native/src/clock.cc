#include "clock.h"

#include <cerrno>
#include <ctime>

#include "system_error.h"

namespace holdfast {
namespace {

Napi::Value MillisecondsSinceBoot(const Napi::CallbackInfo& info) {
  timespec now;
  if (clock_gettime(CLOCK_BOOTTIME, &now) != 0) {
    SystemError(info.Env(), errno, "clock_gettime").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6);
}

}  // namespace

void ExportClock(Napi::Env env, Napi::Object exports) {
  exports.Set("millisecondsSinceBoot", Napi::Function::New(env, MillisecondsSinceBoot));
}

}  // namespace holdfast
