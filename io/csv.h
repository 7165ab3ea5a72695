/// Comma-separated text. A frame is a line; whether the first line is a header is stated, never guessed.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.h"

namespace percept::io {

struct CsvOptions {
  std::optional<bool> header;  ///< must be stated: a header of numbers looks like data
  char delimiter = ',';
  bool allow_inf = false;                            ///< "inf" is an error otherwise
  std::uint64_t max_bytes = std::uint64_t{1} << 40;  ///< a larger file is refused
  bool head_only = false;                            ///< read_csv: the header and the first line of numbers
};

/// A matrix of numbers.
struct CsvTable {
  std::vector<std::string> names;  ///< of the columns; empty without a header
  Eigen::MatrixXd values;          ///< columns x lines: frame after frame, in the order of the file
};

/// Reads numbers. "nan" in any case, "n/a" and an empty cell are NaN; spaces around a cell, CRLF, a byte order mark and
/// a missing last newline are accepted; quotes are understood in the header only.
/// Throws ConfigError when `header` is not stated, DataError naming line and column otherwise.
CsvTable read_csv(const std::filesystem::path& file, const CsvOptions& options);

/// The same block by block: opening reads (and checks) the whole file once and remembers where lines begin.
/// Memory is bounded by a block and a few bytes for every thousand lines.
struct CsvStream {
  std::vector<std::string> names;
  Index columns = 0;
  std::shared_ptr<const SampleSource> samples;
};
CsvStream open_csv(const std::filesystem::path& file, const CsvOptions& options);

/// Reads numbers and text, with quotes as in RFC 4180. A column whose cells are all numbers or missing is numeric;
/// "" and "n/a" are missing. Without a header the columns are "1", "2", ...
Table read_csv_table(const std::filesystem::path& file, const CsvOptions& options);

/// Writes a header line and a line for each row; reals with the fewest digits that read back to the same bits,
/// missing cells empty. Throws DataError when columns differ in length.
void write_csv(const std::filesystem::path& file, const Table& table, char delimiter = ',');
/// A line for each frame; a header line when there are names.
void write_csv(const std::filesystem::path& file, ConstFrames frames, const std::vector<std::string>& names = {},
               char delimiter = ',');

}  // namespace percept::io
