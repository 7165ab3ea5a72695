/// A file, plain or packed by gzip, read at any place as what it holds. Shared by the readers of this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace percept::io {

/// gzip has no index: to go back would mean to start again. While a packed file is read for the first time, the state
/// of the decompressor is kept every few MB (32 kB each), so that jumps and further passes cost little. Each member's
/// length and checksum are verified when its end is reached. Several threads may read at once; packed, they take turns.
class PackedFile {
 public:
  /// Throws DataError unless it is a readable regular file.
  explicit PackedFile(const std::filesystem::path& file);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  const std::filesystem::path& path() const;
  bool packed() const;
  /// No more than this can be in the file: its length, or what the densest gzip stream of that length holds
  /// (1032 bytes out of one). A count that exceeds it is a lie and need not be allocated.
  std::uint64_t most_bytes() const;
  /// The content's length. A packed file is read to its end for it.
  std::uint64_t bytes() const;
  /// Exactly n bytes of the content; throws DataError when it ends before or the stream is damaged.
  void read(std::uint64_t offset, void* to, std::size_t n) const;
  /// Up to n bytes, fewer only at the end of the content.
  std::size_t read_some(std::uint64_t offset, void* to, std::size_t n) const;

 private:
  struct Inflater;
  std::unique_ptr<Inflater> impl_;
};

}  // namespace percept::io
