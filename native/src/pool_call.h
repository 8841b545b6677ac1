#pragma once
#include <napi.h>

#include <cstdint>
#include <functional>
#include <utility>

#include "answer.h"

namespace holdfast {

// One system call on a thread of libuv's pool; keeps the values it works on alive.
class PoolCall : public Napi::AsyncWorker {
 public:
  PoolCall(Napi::Function done, const char* call, std::function<int()> run)
      : Napi::AsyncWorker(done), call_(call), run_(std::move(run)) {}

  void Keep(const Napi::Value& value) {
    if (value.IsObject()) Receiver().Set(kept_++, value);
  }

 protected:
  void Execute() override { error_ = run_(); }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    Answer(Env(), Callback().Value(), error_, call_);
  }

 private:
  const char* call_;
  std::function<int()> run_;
  int error_ = 0;
  uint32_t kept_ = 0;
};

}  // namespace holdfast
