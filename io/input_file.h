/// A file read at any place by several threads at once. Shared by the readers of this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace percept::io {

class InputFile {
 public:
  /// Throws DataError unless it is a readable regular file.
  explicit InputFile(std::filesystem::path file);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }
  /// Exactly n bytes; throws DataError when the file ends before.
  void read(std::uint64_t offset, void* to, std::size_t n) const;
  /// Up to n bytes, fewer only at the end of the file.
  std::size_t read_some(std::uint64_t offset, void* to, std::size_t n) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace percept::io
