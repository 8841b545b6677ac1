// Checks of what JavaScript hands over. Every function throws into JavaScript and returns false on bad
// arguments; nothing native runs then.
#pragma once
#include <napi.h>

#include <cstdint>
#include <vector>

#include <sys/uio.h>

namespace holdfast {

constexpr int64_t kBlockBytes = 4096;
// Largest integer that a double holds exactly.
constexpr double kIntegerMax = 9007199254740991.0;

// Whether it is a whole number from `least` to `most`; NaN is none.
inline bool IsWhole(double number, double least, double most) {
  return number >= least && number <= most && number == static_cast<double>(static_cast<int64_t>(number));
}

inline bool Integer(const Napi::CallbackInfo& info, size_t index, const char* name, double least,
                    double most, int64_t* out) {
  double number;
  // Says itself when it is none.
  if (napi_get_value_double(info.Env(), info[index], &number) != napi_ok) {
    Napi::TypeError::New(info.Env(), std::string(name) + " must be a number")
        .ThrowAsJavaScriptException();
    return false;
  }
  if (!IsWhole(number, least, most)) {
    Napi::RangeError::New(info.Env(), std::string(name) + " is out of range")
        .ThrowAsJavaScriptException();
    return false;
  }
  *out = static_cast<int64_t>(number);
  return true;
}

struct Bytes {
  uint8_t* data;
  size_t length;
};

// False for whatever is no typed array of that type. One call into the engine: it is made for every request.
inline bool Typed(Napi::Env env, const Napi::Value& value, napi_typedarray_type wanted, void** data,
                  size_t* length) {
  napi_typedarray_type type;
  const napi_status status = napi_get_typedarray_info(env, value, &type, length, data, nullptr, nullptr);
  return status == napi_ok && type == wanted;
}

inline bool ByteArray(Napi::Env env, const Napi::Value& value, const char* name, Bytes* out) {
  void* data;
  if (!Typed(env, value, napi_uint8_array, &data, &out->length)) {
    Napi::TypeError::New(env, std::string(name) + " must be a Uint8Array")
        .ThrowAsJavaScriptException();
    return false;
  }
  out->data = static_cast<uint8_t*>(data);
  return true;
}

inline bool WordArray(const Napi::CallbackInfo& info, size_t index, const char* name,
                      uint32_t** data, size_t* length) {
  void* words;
  if (!Typed(info.Env(), info[index], napi_uint32_array, &words, length)) {
    Napi::TypeError::New(info.Env(), std::string(name) + " must be a Uint32Array")
        .ThrowAsJavaScriptException();
    return false;
  }
  *data = static_cast<uint32_t*>(words);
  return true;
}

// True when [offset, offset + length) lies in [0, total); throws otherwise.
inline bool Inside(Napi::Env env, const char* name, int64_t offset, int64_t length, size_t total) {
  const auto end = static_cast<uint64_t>(offset) + static_cast<uint64_t>(length);
  if (end <= total) return true;
  Napi::RangeError::New(env, std::string(name) + " is too short").ThrowAsJavaScriptException();
  return false;
}

inline bool Descriptor(const Napi::CallbackInfo& info, int* out) {
  int64_t fd;
  if (!Integer(info, 0, "fd", 0, 2147483647, &fd)) return false;
  *out = static_cast<int>(fd);
  return true;
}

inline bool Position(const Napi::CallbackInfo& info, size_t index, int64_t* out) {
  return Integer(info, index, "position", 0, kIntegerMax, out);
}

inline bool Callback(const Napi::CallbackInfo& info, size_t index) {
  if (info[index].IsFunction()) return true;
  Napi::TypeError::New(info.Env(), "done must be a function").ThrowAsJavaScriptException();
  return false;
}

inline bool Vectors(const Napi::CallbackInfo& info, size_t index, std::vector<iovec>* out) {
  if (!info[index].IsArray()) {
    Napi::TypeError::New(info.Env(), "buffers must be an array").ThrowAsJavaScriptException();
    return false;
  }
  const auto array = info[index].As<Napi::Array>();
  const uint32_t count = array.Length();
  if (count > 65536) {
    Napi::RangeError::New(info.Env(), "too many buffers").ThrowAsJavaScriptException();
    return false;
  }
  out->reserve(count);
  for (uint32_t i = 0; i < count; i++) {
    Bytes bytes;
    if (!ByteArray(info.Env(), array.Get(i), "buffer", &bytes)) return false;
    if (bytes.length > 0) out->push_back({bytes.data, bytes.length});
  }
  return true;
}

}  // namespace holdfast
