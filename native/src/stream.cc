#include "stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
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

constexpr int64_t kSendPartsMax = 64;

// The bytes that the kernel took.
size_t SendMessages(int fd, iovec* vectors, int64_t count, size_t apart) {
  size_t taken = 0;
  for (int64_t first = 0; first < count;) {
    int64_t end = first;
    size_t bytes = 0;
    do {
      bytes += vectors[end++].iov_len;
    } while (end < count && vectors[end - 1].iov_len < apart && vectors[end].iov_len < apart);
    msghdr message{};
    message.msg_iov = vectors + first;
    message.msg_iovlen = static_cast<size_t>(end - first);
    ssize_t sent;
    do {
      sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) break;
    taken += static_cast<size_t>(sent);
    if (static_cast<size_t>(sent) < bytes) break;
    first = end;
  }
  return taken;
}

// What the kernel takes of `count` parts from `from` on, the first 64 of them, in one message, or in several where parts of
// `apart` bytes and more have one of their own. Whatever keeps the socket from taking more now, an error too, is for the
// caller's stream to find.
Napi::Value Send(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t from;
  int64_t count;
  int64_t apart;
  uint32_t* bounds;
  size_t words;
  if (!Descriptor(info, &fd) || !WordArray(info, 2, "bounds", &bounds, &words) ||
      !Integer(info, 3, "from", 0, 1 << 30, &from) || !Integer(info, 4, "count", 1, 1 << 30, &count) ||
      !Integer(info, 5, "apart", 1, UINT32_MAX, &apart) || !Inside(env, "bounds", 2 * from, 2 * count, words)) {
    return env.Undefined();
  }
  count = std::min(count, kSendPartsMax);
  iovec vectors[kSendPartsMax];
  for (int64_t i = 0; i < count; i++) {
    napi_value part;
    Bytes bytes;
    if (napi_get_element(env, info[1], static_cast<uint32_t>(from + i), &part) != napi_ok) {
      Napi::TypeError::New(env, "parts must be an array").ThrowAsJavaScriptException();
      return env.Undefined();
    }
    if (!ByteArray(env, Napi::Value(env, part), "part", &bytes)) return env.Undefined();
    const uint32_t start = bounds[2 * (from + i)];
    const uint32_t end = std::max(start, bounds[2 * (from + i) + 1]);
    if (!Inside(env, "part", start, end - start, bytes.length)) return env.Undefined();
    vectors[i] = {bytes.data + start, end - start};
  }
  return Napi::Number::New(env, static_cast<double>(SendMessages(fd, vectors, count, static_cast<size_t>(apart))));
}

// What has come, without waiting. The end of the stream is for the caller's stream to find; an error is told only once.
Napi::Value Receive(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  Bytes target;
  if (!Descriptor(info, &fd) || !ByteArray(env, info[1], "target", &target)) return env.Undefined();
  ssize_t got;
  do {
    got = recv(fd, target.data, target.length, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  const bool later = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  return Napi::Number::New(env, static_cast<double>(got >= 0 ? got : later ? 0 : -errno));
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
  exports.Set("send", Napi::Function::New(env, Send));
  exports.Set("receive", Napi::Function::New(env, Receive));
  exports.Set("sendBuffer", Napi::Function::New(env, SendBuffer));
  exports.Set("tcpUserTimeout", Napi::Function::New(env, TcpUserTimeout));
  exports.Set("addressRest", Napi::Function::New(env, AddressRest));
}

}  // namespace holdfast
