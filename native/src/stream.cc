#include "stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

#include "arguments.h"
#include "system_error.h"

namespace holdfast {
namespace {

Napi::Value SendBuffer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t bytes;
  if (!Descriptor(info, &fd) || !Integer(info, 1, "bytes", 1, 1 << 30, &bytes)) return env.Undefined();
  const int value = static_cast<int>(bytes);
  // Beyond net.core.wmem_max only the first, which needs CAP_NET_ADMIN; the second takes what that limit allows.
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof value) != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof value) != 0) {
    SystemError(env, errno, "setsockopt").ThrowAsJavaScriptException();
  }
  return env.Undefined();
}

Napi::Value TcpUserTimeout(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t ms;
  if (!Descriptor(info, &fd) || !Integer(info, 1, "ms", 0, 1 << 30, &ms)) return env.Undefined();
  const unsigned int value = static_cast<unsigned int>(ms);
  if (setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof value) != 0) {
    SystemError(env, errno, "setsockopt").ThrowAsJavaScriptException();
  }
  return env.Undefined();
}

Napi::Value AddressRest(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Bytes bytes;
  int64_t divisor;
  if (!ByteArray(env, info[0], "bytes", &bytes) || !Integer(info, 1, "divisor", 1, 1 << 30, &divisor)) {
    return env.Undefined();
  }
  const auto address = reinterpret_cast<uintptr_t>(bytes.data);
  return Napi::Number::New(env, static_cast<double>(address % static_cast<uintptr_t>(divisor)));
}

}  // namespace

void ExportStream(Napi::Env env, Napi::Object exports) {
  exports.Set("sendBuffer", Napi::Function::New(env, SendBuffer));
  exports.Set("tcpUserTimeout", Napi::Function::New(env, TcpUserTimeout));
  exports.Set("addressRest", Napi::Function::New(env, AddressRest));
}

}  // namespace holdfast
