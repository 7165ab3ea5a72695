/// percept's own file of a recording: HDF5 in its newest format, so that structure and samples carry checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "core/recording.h"

namespace percept::io {

/// Raised when a store written now cannot be read by an older percept.
inline constexpr int kStoreVersion = 1;

/// Writes a recording piece by piece. The file appears at commit() and never before; the same calls give the same
/// bytes. Every function throws DataError naming the file.
class StoreWriter {
 public:
  explicit StoreWriter(const std::filesystem::path& file);
  ~StoreWriter();
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  void set_name(const std::string& name);
  void set_meta(const Value& meta);
  /// Returns the number of the stream for append(). Samples are kept in format.scalar.
  int add_stream(const std::string& name, const StreamFormat& format);
  /// Frames of format.size() rows in any scalar; the item axis needs one rising key a frame.
  void append(int stream, ConstFrames frames, std::span<const std::int64_t> keys = {});
  void add_table(const Table& table);
  /// By rising onset, also from call to call.
  void add_events(std::span<const Event> events);
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A whole recording, read from its sources block by block.
void write_store(const std::filesystem::path& file, const Recording& recording);

/// Opens a store; samples are read block by block, from any number of threads. Only what was written in HDF5's newest
/// format by this or an older version of percept is opened. Throws DataError; a damaged block is one when it is read.
Recording open_store(const std::filesystem::path& file);

}  // namespace percept::io
