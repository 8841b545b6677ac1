#include "sync_threads.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "answer.h"
#include "arguments.h"
#include "courtesy.h"
#include "pool_call.h"

namespace holdfast {
namespace {

// More at once don't make a disk faster.
constexpr uint32_t kThreads = 3;
// They make nothing but system calls.
constexpr size_t kStackBytes = 128 * 1024;
constexpr int64_t kStepBytes = 256 * 1024;

// Begins to write a range. What can be said about it in the end is left to fdatasync.
int BeginWriting(int fd, int64_t position, int64_t length) {
  Courtesy courtesy;
  while (length > 0) {
    const int64_t step = std::min(kStepBytes, length);
    if (sync_file_range(fd, position, step, SYNC_FILE_RANGE_WRITE) != 0) return errno;
    courtesy.Yield();
    position += step;
    length -= step;
  }
  return 0;
}

struct Flush {
  int fd;
  int64_t position;
  int64_t length;
};

int Run(const Flush& flush) {
  const int error = BeginWriting(flush.fd, flush.position, flush.length);
  if (error != 0) return error;
  return fdatasync(flush.fd) == 0 ? 0 : errno;
}

class SyncThread;
void CallEnded(Napi::Env env, Napi::Function none, std::nullptr_t* context, SyncThread* thread);
using EndedCall = Napi::TypedThreadSafeFunction<std::nullptr_t, SyncThread, CallEnded>;

// Idle, or at work on one flush. What both threads see changes hands with the semaphore and with the call that comes back.
class SyncThread {
 public:
  bool idle() const { return done_.IsEmpty(); }

  // It is started when it is first needed. False: the system has no thread for us.
  bool Begin(EndedCall ended, const Flush& flush, Napi::Function done) {
    if (!started_ && !Start(ended)) return false;
    flush_ = flush;
    done_ = Napi::Persistent(done);
    sem_post(&work_);
    return true;
  }

  // On the environment's thread again.
  void End(Napi::Env env) {
    const napi_value done = done_.Value();
    // Whoever is called may begin the next.
    done_.Reset();
    Answer(env, done, error_, "fdatasync");
  }

  // Waits for the flush under way.
  void Stop() {
    if (!started_) return;
    stopping_.store(true);
    sem_post(&work_);
    pthread_join(thread_, nullptr);
    sem_destroy(&work_);
    started_ = false;
  }

 private:
  bool Start(EndedCall ended) {
    ended_ = ended;
    sem_init(&work_, 0, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    started_ = pthread_create(&thread_, &attributes, Main, this) == 0;
    pthread_attr_destroy(&attributes);
    if (started_) pthread_setname_np(thread_, "holdfast-flush");
    else sem_destroy(&work_);
    return started_;
  }

  static void* Main(void* self) {
    static_cast<SyncThread*>(self)->Work();
    return nullptr;
  }

  void Work() {
    for (;;) {
      while (sem_wait(&work_) != 0) {
        // Interrupted.
      }
      if (stopping_.load()) return;
      error_ = Run(flush_);
      ended_.NonBlockingCall(this);
    }
  }

  pthread_t thread_{};
  sem_t work_{};
  bool started_ = false;
  std::atomic<bool> stopping_{false};
  EndedCall ended_;
  Napi::FunctionReference done_;
  Flush flush_{};
  int error_ = 0;
};

// Those of one environment, the main thread's or a shard's, with which they end.
class SyncThreads {
 public:
  explicit SyncThreads(Napi::Env env) : ended_(EndedCall::New(env, "fdatasync", 0, 1)) {
    // What is under way keeps the process alive, and nothing else of it.
    ended_.Unref(env);
    env.AddCleanupHook([this] {
      for (auto& thread : threads_) thread.Stop();
      ended_.Release();
    });
  }

  // False: all are at work, or there can be none.
  bool Begin(Napi::Env env, const Flush& flush, Napi::Function done) {
    for (auto& thread : threads_) {
      if (!thread.idle()) continue;
      if (!thread.Begin(ended_, flush, done)) return false;
      if (at_work_++ == 0) ended_.Ref(env);
      return true;
    }
    return false;
  }

  void End(Napi::Env env, SyncThread* thread) {
    if (--at_work_ == 0) ended_.Unref(env);
    thread->End(env);
  }

 private:
  EndedCall ended_;
  std::array<SyncThread, kThreads> threads_;
  size_t at_work_ = 0;
};

void CallEnded(Napi::Env env, Napi::Function, std::nullptr_t*, SyncThread* thread) {
  // Without an environment nobody is there to be told.
  if (static_cast<napi_env>(env) != nullptr) env.GetInstanceData<SyncThreads>()->End(env, thread);
}

Napi::Value Datasync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Flush flush;
  if (!Descriptor(info, &flush.fd) || !Position(info, 1, &flush.position) ||
      !Integer(info, 2, "length", 0, kIntegerMax, &flush.length) || !Callback(info, 3)) {
    return env.Undefined();
  }
  const auto done = info[3].As<Napi::Function>();
  if (!env.GetInstanceData<SyncThreads>()->Begin(env, flush, done)) {
    (new PoolCall(done, "fdatasync", [=]() { return Run(flush); }))->Queue();
  }
  return env.Undefined();
}

}  // namespace

void ExportSyncThreads(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new SyncThreads(env));
  exports.Set("datasync", Napi::Function::New(env, Datasync));
  exports.Set("syncThreads", Napi::Number::New(env, kThreads));
}

}  // namespace holdfast
