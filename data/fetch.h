/// Files of registered data sets: from a mirror, from the cache, or from their URL. Never used unverified.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/context.h"
#include "core/error.h"
#include "data/registry.h"

namespace percept::data {

/// A file of a data set cannot be had here and now: no mirror, and no network or no URL. One sentence says what to do.
class Unavailable : public Error {
 public:
  explicit Unavailable(const std::string& message) : Error(message, Exit::run_failed) {}
};

struct FetchOptions {
  long connect_s = 20;  ///< longest wait for a server to answer
  long stall_s = 30;    ///< longest time below 100 bytes a second
};

/// $XDG_CACHE_HOME/percept, else ~/.cache/percept. Throws Unavailable when there is neither.
std::filesystem::path cache_folder();

/// The file as it is on this machine, verified: below PERCEPT_DATA_MIRROR (used in place, never copied), else where the
/// set's Debian package puts it, else in the cache; nothing when neither has it. Throws DataError naming file, expected and found when size or sha256 differ.
std::optional<std::filesystem::path> locate(const DataSet& set, std::string_view file);

/// locate(), else downloaded from the file's URL into the cache: only https, or http on this machine's loopback, or
/// file://. It appears under its name once it is verified. `progress` may be empty and may throw to stop the download.
/// Throws DataError when the bytes are others than registered, Unavailable when they cannot be had.
std::filesystem::path fetch(const DataSet& set, std::string_view file, const ProgressFn& progress = {},
                            const FetchOptions& options = {});

}  // namespace percept::data
