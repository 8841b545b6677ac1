// A failed system call as an Error of JavaScript's, with `code`, `errno` and `syscall`.
#pragma once
#include <napi.h>
#include <uv.h>

#include <string>

namespace holdfast {

inline Napi::Error SystemError(Napi::Env env, int error, const char* call) {
  char code[32];
  uv_err_name_r(-error, code, sizeof code);
  char text[128];
  uv_strerror_r(-error, text, sizeof text);
  auto made = Napi::Error::New(env, std::string(call) + ": " + text);
  made.Set("code", Napi::String::New(env, code));
  made.Set("errno", Napi::Number::New(env, error));
  made.Set("syscall", Napi::String::New(env, call));
  return made;
}

}  // namespace holdfast
