/// Files that are never half-written, and digests of what was read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace percept {

/// Writes `text` beside the file, syncs, renames. Throws DataError naming the file.
void write_atomic(const std::filesystem::path& file, std::string_view text);

/// A temporary name beside `final_path` that appears under its own name only at commit(); removed otherwise.
/// Works for a file or a folder; an existing one is replaced.
class AtomicPath {
 public:
  explicit AtomicPath(std::filesystem::path final_path);
  ~AtomicPath();
  AtomicPath(const AtomicPath&) = delete;
  AtomicPath& operator=(const AtomicPath&) = delete;
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path final_, temporary_;
  bool done_ = false;
};

/// Throws DataError when the file is missing, a directory, unreadable, or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& file, std::uint64_t max_bytes = UINT64_MAX);
/// Throws DataError unless it is a readable regular file; returns its size.
std::uint64_t require_file(const std::filesystem::path& file);

/// Lower-case hex sha256.
std::string sha256(std::span<const std::byte> bytes);
std::string sha256(std::string_view text);
std::string sha256_file(const std::filesystem::path& file);
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(const void* data, std::size_t bytes);
  std::string hex();

 private:
  void* context_;
};

}  // namespace percept
