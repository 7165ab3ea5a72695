/// What the fuzz targets share: the bytes as a file, seeds, and the one way in which a reader may refuse.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/recording.h"

namespace percept::fuzz {

/// A file that lives in memory, under a path that any reader can open.
class MemoryFile {
 public:
  MemoryFile(const std::uint8_t* data, std::size_t bytes) : fd_(memfd_create("fuzz", 0)) {
    if (fd_ < 0 || write(fd_, data, bytes) != static_cast<ssize_t>(bytes)) std::abort();
    // by number of this process, so that a child process finds it too
    path_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

/// Runs a reader. Only percept's own errors may come out of it, and each is one line.
template <class F>
void try_reading(const F& read) {
  try {
    read();
  } catch (const Error& e) {
    if (std::string_view(e.what()).empty()) std::abort();
  }
}

/// Reads a source whole, unless that would be slow: block by block and once more at its end.
inline void read_source(const SampleSource& source, Index rows) {
  if (rows <= 0 || rows > 1 << 20) return;
  std::vector<double> block(static_cast<std::size_t>(rows) * 3);
  for (std::int64_t k = 0; k < std::min<std::int64_t>(source.frames(), 1000); k += 3)
    source.read(k, MutableFrames(block.data(), Scalar::f64, rows, std::min<Index>(3, source.frames() - k), rows));
  if (source.frames() > 0) source.read(source.frames() - 1, MutableFrames(block.data(), Scalar::f32, rows, 1, rows));
}

/// Each target's own: the files from which mutation starts.
std::vector<std::string> seeds();

}  // namespace percept::fuzz

/// `fuzz_x --seeds FOLDER` writes the seeds and ends.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc == 3 && std::strcmp((*argv)[1], "--seeds") == 0) {
    const std::filesystem::path folder = (*argv)[2];
    std::filesystem::create_directories(folder);
    int n = 0;
    for (const auto& seed : percept::fuzz::seeds())
      std::ofstream(folder / ("seed-" + std::to_string(n++)), std::ios::binary) << seed;
    std::exit(0);
  }
  return 0;
}
