#pragma once
#include <sched.h>

#include <chrono>

namespace holdfast {

// Lets whoever waits for this thread's processor have it, between two steps of long work: a thread in the kernel is not
// interrupted, and who was woken on its processor stays there, even where another is idle. Where all processors are busy
// it would take milliseconds to have one back, so the first time that does ends it.
class Courtesy {
 public:
  void Yield() {
    if (!worthwhile_) return;
    const auto start = std::chrono::steady_clock::now();
    sched_yield();
    worthwhile_ = std::chrono::steady_clock::now() - start < kReturnMax;
  }

 private:
  static constexpr std::chrono::microseconds kReturnMax{300};
  bool worthwhile_ = true;
};

}  // namespace holdfast
