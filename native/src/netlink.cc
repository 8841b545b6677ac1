#include "netlink.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "arguments.h"
#include "system_error.h"

namespace holdfast {
namespace {

// Both directions; 0 waits for ever. 0 or an errno.
int SetTimeout(int fd, int64_t ms) {
  timeval time{};
  time.tv_sec = static_cast<time_t>(ms / 1000);
  time.tv_usec = static_cast<suseconds_t>(ms % 1000 * 1000);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) != 0) return errno;
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) != 0) return errno;
  return 0;
}

Napi::Value Fail(Napi::Env env, int fd, int error, const char* call) {
  if (fd >= 0) close(fd);
  SystemError(env, error, call).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value NetlinkSocket(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int64_t timeout;
  if (!Integer(info, 0, "timeoutMs", 0, 86400000, &timeout)) return env.Undefined();
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return Fail(env, fd, errno, "socket");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Fail(env, fd, errno, "bind");
  }
  const int error = SetTimeout(fd, timeout);
  if (error != 0) return Fail(env, fd, error, "setsockopt");
  return Napi::Number::New(env, fd);
}

Napi::Value JoinNetlinkGroup(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t group;
  if (!Descriptor(info, &fd) || !Integer(info, 1, "group", 1, 2147483647, &group)) return env.Undefined();
  const int number = static_cast<int>(group);
  if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &number, sizeof number) != 0) {
    return Fail(env, -1, errno, "setsockopt");
  }
  return env.Undefined();
}

Napi::Value UnixSocket(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int64_t timeout;
  if (!info[0].IsString()) {
    Napi::TypeError::New(env, "path must be a string").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  if (!Integer(info, 1, "timeoutMs", 0, 86400000, &timeout)) return env.Undefined();
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Fail(env, -1, ENAMETOOLONG, "connect");
  memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Fail(env, fd, errno, "socket");
  const int error = SetTimeout(fd, timeout);
  if (error != 0) return Fail(env, fd, error, "setsockopt");
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Fail(env, fd, errno, "connect");
  }
  return Napi::Number::New(env, fd);
}

Napi::Value SocketTimeout(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t timeout;
  if (!Descriptor(info, &fd) || !Integer(info, 1, "timeoutMs", 0, 86400000, &timeout)) {
    return env.Undefined();
  }
  const int error = SetTimeout(fd, timeout);
  if (error != 0) return Fail(env, -1, error, "setsockopt");
  return env.Undefined();
}

}  // namespace

void ExportNetlink(Napi::Env env, Napi::Object exports) {
  exports.Set("netlinkSocket", Napi::Function::New(env, NetlinkSocket));
  exports.Set("joinNetlinkGroup", Napi::Function::New(env, JoinNetlinkGroup));
  exports.Set("unixSocket", Napi::Function::New(env, UnixSocket));
  exports.Set("socketTimeout", Napi::Function::New(env, SocketTimeout));
}

}  // namespace holdfast
