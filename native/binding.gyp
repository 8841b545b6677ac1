{
  "targets": [
    {
      "target_name": "holdfast",
      "sources": ["src/addon.cc", "src/clock.cc", "src/crc32c.cc", "src/crc32c_fold.cc", "src/descriptors.cc", "src/file_io.cc", "src/netlink.cc", "src/stream.cc", "src/sync_threads.cc"],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "_GNU_SOURCE"],
      "cflags_cc": ["-std=c++17", "-O3", "-Wall", "-Wextra", "-fno-exceptions"],
      "cflags!": ["-fno-omit-frame-pointer"]
    }
  ]
}
