#include "io/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/files.h"

namespace percept::io {

InputFile::InputFile(std::filesystem::path file) : path_(std::move(file)), bytes_(require_file(path_)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw DataError(path_.string(), "", "a readable file", std::strerror(errno));
}

InputFile::~InputFile() { ::close(fd_); }

std::size_t InputFile::read_some(std::uint64_t offset, void* to, std::size_t n) const {
  std::size_t got = 0;
  while (got < n) {
    const ssize_t r = ::pread(fd_, static_cast<char*>(to) + got, n - got, static_cast<off_t>(offset + got));
    if (r == 0) break;
    if (r > 0) got += static_cast<std::size_t>(r);
    else if (errno != EINTR) throw DataError(path_.string(), "", "a readable file", std::strerror(errno));
  }
  return got;
}

void InputFile::read(std::uint64_t offset, void* to, std::size_t n) const {
  if (const std::size_t got = read_some(offset, to, n); got < n)
    throw DataError(path_.string(), fmt::format("byte {}", offset), fmt::format("{} bytes", n), fmt::format("{}", got));
}

}  // namespace percept::io
