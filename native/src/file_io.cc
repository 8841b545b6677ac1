#include "file_io.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "courtesy.h"
#include "crc32c.h"
#include "pool_call.h"
#include "system_error.h"

namespace holdfast {
namespace {

// Writes everything, however often the kernel takes only a part. 0 or an errno.
int WriteAll(int fd, iovec* vectors, size_t count, int64_t position) {
  while (count > 0) {
    const int batch = static_cast<int>(std::min<size_t>(count, IOV_MAX));
    ssize_t written = pwritev(fd, vectors, batch, position);
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (written == 0) return EIO;
    position += written;
    while (count > 0 && static_cast<size_t>(written) >= vectors->iov_len) {
      written -= static_cast<ssize_t>(vectors->iov_len);
      vectors++;
      count--;
    }
    if (count > 0 && written > 0) {
      vectors->iov_base = static_cast<uint8_t*>(vectors->iov_base) + written;
      vectors->iov_len -= static_cast<size_t>(written);
    }
  }
  return 0;
}

// In short steps, each on the disk before the next is begun: who flushes another file meanwhile waits for one of them.
constexpr size_t kFillStepBytes = 32 * 1024;
alignas(4096) const uint8_t kZeroes[kFillStepBytes] = {};

// With `wait` it leaves data on the disk, but what the filesystem has to say about them in its journal to a later
// fdatasync. Without, it only makes pages, of the size of a step: a large write into pages of small ones costs half as
// much again, and a small one into a page of a large one looks at all blocks of that.
int FillWithZeroes(int fd, int64_t position, int64_t length, bool wait) {
  Courtesy courtesy;
  while (length > 0) {
    const auto step = std::min<size_t>(kFillStepBytes, static_cast<size_t>(length));
    iovec vector{const_cast<uint8_t*>(kZeroes), step};
    const int error = WriteAll(fd, &vector, 1, position);
    if (error != 0) return error;
    const unsigned flags = SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (!wait) courtesy.Yield();
    else if (sync_file_range(fd, position, static_cast<off_t>(step), flags) != 0) return errno;
    position += static_cast<int64_t>(step);
    length -= static_cast<int64_t>(step);
  }
  return 0;
}

constexpr size_t kReadStepBytes = 64 * 1024;

// The page cache refuses a whole folio, up to hundreds of blocks, for one bad sector in it. Asked for past it, a block
// that is not that sector's is given. 0 or an errno.
int ReadBlockDirectly(int fd, uint8_t* target, int64_t position) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const int direct = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (direct < 0) return EIO;
  alignas(kBlockBytes) uint8_t block[kBlockBytes];
  ssize_t got;
  do {
    got = pread(direct, block, kBlockBytes, position);
  } while (got < 0 && errno == EINTR);
  const int error = got < 0 ? errno : got == kBlockBytes ? 0 : EIO;
  close(direct);
  if (error == 0) memcpy(target, block, kBlockBytes);
  return error;
}

int ReadAll(int fd, uint8_t* target, size_t length, int64_t position) {
  Courtesy courtesy;
  while (length > 0) {
    const ssize_t got = pread(fd, target, std::min(length, kReadStepBytes), position);
    if (got < 0) {
      if (errno == EINTR) continue;
      const bool one_block = length == kBlockBytes && position % kBlockBytes == 0;
      return errno == EIO && one_block ? ReadBlockDirectly(fd, target, position) : errno;
    }
    if (got == 0) return EIO;
    target += got;
    position += got;
    length -= static_cast<size_t>(got);
    if (length > 0) courtesy.Yield();
  }
  return 0;
}

Napi::Value WriteSync(const Napi::CallbackInfo& info) {
  int fd;
  int64_t position;
  std::vector<iovec> vectors;
  if (!Descriptor(info, &fd) || !Vectors(info, 1, &vectors) || !Position(info, 2, &position)) {
    return info.Env().Undefined();
  }
  const int error = WriteAll(fd, vectors.data(), vectors.size(), position);
  if (error != 0) SystemError(info.Env(), error, "pwritev").ThrowAsJavaScriptException();
  return info.Env().Undefined();
}

Napi::Value Write(const Napi::CallbackInfo& info) {
  int fd;
  int64_t position;
  std::vector<iovec> vectors;
  if (!Descriptor(info, &fd) || !Vectors(info, 1, &vectors) || !Position(info, 2, &position) ||
      !Callback(info, 3)) {
    return info.Env().Undefined();
  }
  auto* work = new PoolCall(info[3].As<Napi::Function>(), "pwritev", [=]() mutable {
    return WriteAll(fd, vectors.data(), vectors.size(), position);
  });
  // The array itself could be changed meanwhile: its members are kept one by one.
  const auto array = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) work->Keep(array.Get(i));
  work->Queue();
  return info.Env().Undefined();
}

// So few that their checksums find them in the core's own cache, where the read has just put them.
constexpr int64_t kVerifiedBlocks = 32;

// How many leading blocks are right. -1: one that is not in the page cache was found before any that is wrong.
int64_t ReadCached(int fd, uint8_t* target, int64_t blocks, int64_t position, const uint32_t* crcs) {
  for (int64_t done = 0; done < blocks;) {
    const int64_t end = std::min(blocks, done + kVerifiedBlocks);
    const int64_t length = (end - done) * kBlockBytes;
    iovec vector{target + done * kBlockBytes, static_cast<size_t>(length)};
    ssize_t got;
    do {
      got = preadv2(fd, &vector, 1, position + done * kBlockBytes, RWF_NOWAIT);
    } while (got < 0 && errno == EINTR);
    // Whatever keeps it from being read at once (not cached, not supported there) is found out by `read`.
    if (got != length) return -1;
    for (; done < end; done++) {
      if (Crc32c(0, target + done * kBlockBytes, kBlockBytes) != crcs[done]) return done;
    }
  }
  return blocks;
}

Napi::Value TryReadVerified(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  Bytes target;
  int64_t offset, blocks, position, crc_index;
  uint32_t* crcs;
  size_t crc_count;
  if (!Descriptor(info, &fd) || !ByteArray(env, info[1], "target", &target) ||
      !Integer(info, 2, "targetOffset", 0, kIntegerMax, &offset) ||
      !Integer(info, 3, "blockCount", 0, 1 << 30, &blocks) || !Position(info, 4, &position) ||
      !WordArray(info, 5, "crcs", &crcs, &crc_count) ||
      !Integer(info, 6, "crcIndex", 0, kIntegerMax, &crc_index) ||
      !Inside(env, "target", offset, blocks * kBlockBytes, target.length) ||
      !Inside(env, "crcs", crc_index, blocks, crc_count)) {
    return env.Undefined();
  }
  return Napi::Number::New(env, static_cast<double>(ReadCached(fd, target.data + offset, blocks, position, crcs + crc_index)));
}

struct Piece {
  int fd;
  uint8_t* target;
  int64_t blocks;
  int64_t position;
  const uint32_t* crcs;
};

// All of them are checked before the first is read.
bool Pieces(const Napi::CallbackInfo& info, std::vector<Piece>* out) {
  const Napi::Env env = info.Env();
  int64_t count;
  Bytes target;
  void *fds, *positions;
  uint32_t *block_counts, *target_offsets, *crcs;
  size_t fd_count, position_count, length_count, offset_count, crc_count;
  if (!Integer(info, 0, "count", 0, kIntegerMax, &count) || !ByteArray(env, info[1], "target", &target)) return false;
  if (!Typed(env, info[2], napi_int32_array, &fds, &fd_count) ||
      !Typed(env, info[3], napi_float64_array, &positions, &position_count)) {
    Napi::TypeError::New(env, "fds must be an Int32Array, positions a Float64Array").ThrowAsJavaScriptException();
    return false;
  }
  if (!WordArray(info, 4, "blockCounts", &block_counts, &length_count) ||
      !WordArray(info, 5, "targetOffsets", &target_offsets, &offset_count) ||
      !WordArray(info, 6, "crcs", &crcs, &crc_count) || !Inside(env, "fds", 0, count, fd_count) ||
      !Inside(env, "positions", 0, count, position_count) || !Inside(env, "blockCounts", 0, count, length_count) ||
      !Inside(env, "targetOffsets", 0, count, offset_count)) {
    return false;
  }
  out->reserve(static_cast<size_t>(count));
  int64_t crc_index = 0;
  for (int64_t i = 0; i < count; i++) {
    const int fd = static_cast<int32_t*>(fds)[i];
    const double position = static_cast<double*>(positions)[i];
    const int64_t blocks = block_counts[i];
    const int64_t offset = target_offsets[i];
    if (!Inside(env, "target", offset, blocks * kBlockBytes, target.length) ||
        !Inside(env, "crcs", crc_index, blocks, crc_count)) {
      return false;
    }
    if (fd < 0 || !IsWhole(position, 0, kIntegerMax)) {
      Napi::RangeError::New(env, fd < 0 ? "fd is out of range" : "position is out of range").ThrowAsJavaScriptException();
      return false;
    }
    out->push_back({fd, target.data + offset, blocks, static_cast<int64_t>(position), crcs + crc_index});
    crc_index += blocks;
  }
  return true;
}

Napi::Value TryReadPieces(const Napi::CallbackInfo& info) {
  std::vector<Piece> pieces;
  if (!Pieces(info, &pieces)) return info.Env().Undefined();
  for (const auto& [fd, target, blocks, position, crcs] : pieces) {
    if (ReadCached(fd, target, blocks, position, crcs) != blocks) return Napi::Boolean::New(info.Env(), false);
  }
  return Napi::Boolean::New(info.Env(), true);
}

Napi::Value Read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  Bytes target;
  int64_t offset, length, position;
  if (!Descriptor(info, &fd) || !ByteArray(env, info[1], "target", &target) ||
      !Integer(info, 2, "targetOffset", 0, kIntegerMax, &offset) ||
      !Integer(info, 3, "length", 0, kIntegerMax, &length) || !Position(info, 4, &position) ||
      !Callback(info, 5) || !Inside(env, "target", offset, length, target.length)) {
    return env.Undefined();
  }
  uint8_t* into = target.data + offset;
  auto* work = new PoolCall(info[5].As<Napi::Function>(), "pread", [=]() {
    return ReadAll(fd, into, static_cast<size_t>(length), position);
  });
  work->Keep(info[1]);
  work->Queue();
  return env.Undefined();
}

// fd first, `done` last, and a call in between that needs no memory of JavaScript's.
void QueueCall(const Napi::CallbackInfo& info, size_t done, const char* call,
               std::function<int()> run) {
  if (!Callback(info, done)) return;
  auto* work = new PoolCall(info[done].As<Napi::Function>(), call, std::move(run));
  work->Queue();
}

Napi::Value Sync(const Napi::CallbackInfo& info) {
  int fd;
  if (Descriptor(info, &fd)) {
    QueueCall(info, 1, "fsync", [=]() { return fsync(fd) == 0 ? 0 : errno; });
  }
  return info.Env().Undefined();
}

Napi::Value Allocate(const Napi::CallbackInfo& info) {
  int fd;
  int64_t length;
  if (Descriptor(info, &fd) && Integer(info, 1, "length", 1, kIntegerMax, &length)) {
    QueueCall(info, 2, "fallocate", [=]() { return fallocate(fd, 0, 0, length) == 0 ? 0 : errno; });
  }
  return info.Env().Undefined();
}

Napi::Value Fill(const Napi::CallbackInfo& info) {
  int fd;
  int64_t position, length;
  if (Descriptor(info, &fd) && Position(info, 1, &position) &&
      Integer(info, 2, "length", 1, kIntegerMax, &length)) {
    const bool wait = info[3].ToBoolean();
    QueueCall(info, 4, "pwritev", [=]() { return FillWithZeroes(fd, position, length, wait); });
  }
  return info.Env().Undefined();
}

Napi::Value PunchHole(const Napi::CallbackInfo& info) {
  int fd;
  int64_t position, length;
  if (Descriptor(info, &fd) && Position(info, 1, &position) &&
      Integer(info, 2, "length", 1, kIntegerMax, &length)) {
    QueueCall(info, 3, "fallocate", [=]() {
      const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      return fallocate(fd, mode, position, length) == 0 ? 0 : errno;
    });
  }
  return info.Env().Undefined();
}

Napi::Value NextData(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  int64_t position;
  if (!Descriptor(info, &fd) || !Position(info, 1, &position)) return env.Undefined();
  const off_t start = lseek(fd, position, SEEK_DATA);
  const off_t end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
  if (end < 0) {
    // There is no more data behind that position.
    if (errno != ENXIO) SystemError(env, errno, "lseek").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  auto extent = Napi::Array::New(env, 2);
  extent.Set(0u, Napi::Number::New(env, static_cast<double>(start)));
  extent.Set(1u, Napi::Number::New(env, static_cast<double>(end)));
  return extent;
}

}  // namespace

void ExportFileIo(Napi::Env env, Napi::Object exports) {
  exports.Set("writeSync", Napi::Function::New(env, WriteSync));
  exports.Set("write", Napi::Function::New(env, Write));
  exports.Set("tryReadVerified", Napi::Function::New(env, TryReadVerified));
  exports.Set("tryReadPieces", Napi::Function::New(env, TryReadPieces));
  exports.Set("read", Napi::Function::New(env, Read));
  exports.Set("sync", Napi::Function::New(env, Sync));
  exports.Set("allocate", Napi::Function::New(env, Allocate));
  exports.Set("fill", Napi::Function::New(env, Fill));
  exports.Set("punchHole", Napi::Function::New(env, PunchHole));
  exports.Set("nextData", Napi::Function::New(env, NextData));
}

}  // namespace holdfast
