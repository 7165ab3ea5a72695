#include "core/spool.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace percept {

Spool::Spool(Index rows, Scalar scalar, const std::string& folder, std::size_t memory_bytes)
    : rows_(rows), scalar_(scalar), folder_(folder.empty() ? std::filesystem::temp_directory_path().string() : folder),
      memory_bytes_(memory_bytes) {}

Spool::~Spool() {
  if (file_ >= 0) ::close(file_);
}

namespace {
void write_all(int file, const std::byte* data, std::size_t n, const std::string& folder) {
  while (n) {
    const ssize_t w = ::write(file, data, n);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) throw DataError(folder, "temporary file", "room for it", std::strerror(errno));
    data += w;
    n -= static_cast<std::size_t>(w);
  }
}
}  // namespace

void Spool::spill() {
  std::string name = folder_ + "/percept-spool-XXXXXX";
  file_ = ::mkstemp(name.data());
  if (file_ < 0) throw DataError(folder_, "temporary file", "a folder that can be written", std::strerror(errno));
  ::unlink(name.c_str());  // gone with the process, however it ends
  write_all(file_, memory_.data(), memory_.size(), folder_);
  std::vector<std::byte>().swap(memory_);
}

void Spool::append(ConstFrames x) {
  const std::size_t frame = static_cast<std::size_t>(rows_) * bytes_of(scalar_);
  const std::size_t bytes = frame * static_cast<std::size_t>(x.frames);
  if (file_ < 0 && memory_.size() + bytes > memory_bytes_) spill();
  if (file_ < 0) {
    const auto at = memory_.size();
    memory_.resize(at + bytes);
    copy_frames(x, MutableFrames(memory_.data() + at, scalar_, rows_, x.frames, rows_));
  } else {
    std::vector<std::byte> packed(bytes);
    copy_frames(x, MutableFrames(packed.data(), scalar_, rows_, x.frames, rows_));
    write_all(file_, packed.data(), bytes, folder_);
  }
  frames_ += x.frames;
}

void Spool::read(std::int64_t first, MutableFrames out) const {
  if (first < 0 || first + out.frames > frames_)
    throw DataError("temporary file", "frames", fmt::format("a range inside [0, {})", frames_),
                    fmt::format("[{}, {})", first, first + out.frames));
  const std::size_t frame = static_cast<std::size_t>(rows_) * bytes_of(scalar_);
  const std::size_t bytes = frame * static_cast<std::size_t>(out.frames),
                    from = frame * static_cast<std::size_t>(first);
  if (file_ < 0) {
    copy_frames(ConstFrames(memory_.data() + from, scalar_, rows_, out.frames, rows_), out);
    return;
  }
  const bool direct = out.scalar == scalar_ && out.stride == rows_;
  std::vector<std::byte> packed(direct ? 0 : bytes);
  std::byte* to = direct ? static_cast<std::byte*>(out.data) : packed.data();
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t r = ::pread(file_, to + done, bytes - done, static_cast<off_t>(from + done));
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) throw DataError("temporary file", "", "readable frames", r ? std::strerror(errno) : "its end");
    done += static_cast<std::size_t>(r);
  }
  if (!direct) copy_frames(ConstFrames(packed.data(), scalar_, rows_, out.frames, rows_), out);
}

}  // namespace percept
