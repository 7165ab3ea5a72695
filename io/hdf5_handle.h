/// What the .cpp files that talk to libhdf5 share. Not for others; hdf5.h stays out of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

namespace percept::io {

/// One lock around every call into libhdf5 (and matio, which uses it): not every build of it is thread-safe.
std::recursive_mutex& hdf5_mutex();
/// Takes the lock and keeps libhdf5 from printing; its complaints become exceptions here.
class Hdf5Lock {
 public:
  Hdf5Lock();

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

/// Owns one identifier of libhdf5.
class Hdf5Handle {
 public:
  using Close = int (*)(std::int64_t);
  Hdf5Handle() = default;
  Hdf5Handle(std::int64_t id, Close close) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Hdf5Handle();
  std::int64_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }
  /// Closes now; false when libhdf5 could not (a last write failed).
  bool close();

 private:
  std::int64_t id_ = -1;
  Close close_ = nullptr;
};

/// libhdf5's own last words, for a message.
std::string hdf5_complaint();

/// Opens a file for reading, without locking it and with nothing cached beyond this handle.
/// Throws DataError.
Hdf5Handle open_hdf5_file(const std::filesystem::path& file);

/// Reads the whole of a foreign file as the functions of io/hdf5.h and io/mat.h would, and more: attributes, text,
/// every shape. Only percept-probe calls these: a broken file may crash them.
void walk_hdf5(const std::filesystem::path& file);
void walk_mat(const std::filesystem::path& file);

}  // namespace percept::io
