/// The recordings percept knows by name: what they are, whose they are, where their files come from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/value.h"

namespace percept::data {

struct DataFile {
  std::string name;    ///< "x.csv"
  std::string mirror;  ///< path below PERCEPT_DATA_MIRROR: "bci/flint_run1/x.csv"
  std::string url;     ///< where exactly these bytes are; "" = only a mirror or a package has them
  std::string sha256;
  std::uint64_t bytes = 0;
  std::string installed = {};  ///< where the set's Debian package puts it; "" = it is in none
};

struct DataSet {
  std::string name, title, description, licence, citation;
  std::string source;                 ///< page of the publisher
  std::string conversion;             ///< how the files differ from what the source publishes; "" = they do not
  std::string package;                ///< of Debian, which holds the files; "" = none does
  std::string loader;                 ///< who makes a Recording of it (data/loaders.h)
  std::vector<std::string> warnings;  ///< what a reader of any score must know
  std::vector<std::string> notes;
  std::vector<DataFile> files;

  /// Throws ConfigError listing the files with a "did you mean".
  const DataFile& file(std::string_view file_name) const;
};

/// Every set, in the order of the registry: the one built in, or the file named by PERCEPT_DATA_REGISTRY.
/// Throws DataError or ConfigError when that file is wrong.
std::vector<DataSet> data_sets();

/// Throws ConfigError with a "did you mean".
DataSet data_set(std::string_view name);

/// Everything the registry says of a set, for --json; empty texts and lists are left out.
Value describe(const DataSet& set);

}  // namespace percept::data
