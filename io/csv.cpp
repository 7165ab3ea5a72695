#include "io/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <mutex>
#include <set>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "io/input_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kCsvBlock = std::size_t{1} << 20;
constexpr std::size_t kLongestLine = std::size_t{1} << 28;
constexpr std::int64_t kLinesPerMark = 1024;

/// A piece of the file for a message: short, on one line, printable.
std::string shown(std::string_view text) {
  if (text.empty()) return "an empty cell";
  std::string s = "'";
  for (const char c : text.substr(0, 40)) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) s += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else s += c;
  }
  return s + (text.size() > 40 ? "...'" : "'");
}

bool equal_ignoring_case(std::string_view a, std::string_view lower) {
  if (a.size() != lower.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if ((a[i] >= 'A' && a[i] <= 'Z' ? a[i] + 32 : a[i]) != lower[i]) return false;
  return true;
}

bool is_missing(std::string_view cell) { return cell.empty() || equal_ignoring_case(cell, "n/a"); }

std::string_view trimmed(std::string_view s, char delimiter) {
  const auto blank = [&](char c) { return (c == ' ' || c == '\t') && c != delimiter; };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

enum class Cell { number, infinite, too_large, other };

/// One trimmed cell; never depends on the locale.
Cell parse_cell(std::string_view cell, double& value) {
  if (is_missing(cell) || equal_ignoring_case(cell, "nan") || equal_ignoring_case(cell, "-nan")) {
    value = std::numeric_limits<double>::quiet_NaN();
    return Cell::number;
  }
  if (cell.size() > 1 && cell[0] == '+' && cell[1] != '-') cell.remove_prefix(1);
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (end != cell.data() + cell.size()) return Cell::other;
  if (error == std::errc::result_out_of_range) return Cell::too_large;
  if (error != std::errc() || std::isnan(value)) return Cell::other;
  return std::isinf(value) ? Cell::infinite : Cell::number;
}

/// Lines one after the other, without their ends, through one buffer.
class LineReader {
 public:
  explicit LineReader(const InputFile& file, std::uint64_t offset = 0) : file_(file), next_(offset), offset_(offset) {}

  /// The line stays valid until the next call.
  bool next(std::string_view& line) {
    offset_ += consumed_;
    std::size_t searched = begin_;
    for (;;) {
      if (const void* end = std::memchr(buffer_.data() + searched, '\n', end_ - searched)) {
        const std::size_t stop = static_cast<std::size_t>(static_cast<const char*>(end) - buffer_.data());
        line = {buffer_.data() + begin_, stop - begin_};
        consumed_ = line.size() + 1;
        begin_ = stop + 1;
        break;
      }
      searched = end_ - begin_;
      if (!fill()) {
        if (begin_ == end_) return false;
        line = {buffer_.data() + begin_, end_ - begin_};
        consumed_ = line.size();
        begin_ = end_;
        break;
      }
    }
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return true;
  }
  /// Where the last line begins.
  std::uint64_t offset() const { return offset_; }

 private:
  /// Moves what is left to the front and reads on; false at the end of the file.
  bool fill() {
    const std::size_t left = end_ - begin_;
    if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, left);
    begin_ = 0;
    end_ = left;
    if (left > kLongestLine)
      throw DataError(file_.path().string(), fmt::format("byte {}", offset_),
                      fmt::format("lines of at most {} bytes", kLongestLine), "a longer one");
    // small files get small buffers
    buffer_.resize(
        std::max(static_cast<std::size_t>(std::min<std::uint64_t>(kCsvBlock, file_.bytes() - next_ + 1)), 2 * left));
    const std::size_t got = file_.read_some(next_, buffer_.data() + end_, buffer_.size() - end_);
    next_ += got;
    end_ += got;
    return got > 0;
  }

  const InputFile& file_;
  std::vector<char> buffer_ = std::vector<char>(1);
  std::size_t begin_ = 0, end_ = 0, consumed_ = 0;
  std::uint64_t next_, offset_;
};

[[noreturn]] void csv_error(const fs::path& file, std::int64_t line, std::size_t column, const std::string& expected,
                            const std::string& found) {
  throw DataError(file.string(),
                  column ? fmt::format("line {}, column {}", line, column) : fmt::format("line {}", line), expected,
                  found);
}

[[noreturn]] void refuse_cell(const fs::path& file, std::int64_t line, std::size_t column, std::string_view cell,
                              Cell kind, bool first_data_line) {
  if (cell.find('\0') != cell.npos) csv_error(file, line, column, "text", "a NUL byte");
  if (kind == Cell::infinite)
    csv_error(file, line, column, "a finite number (allow_inf = true lets it pass)", shown(cell));
  if (kind == Cell::too_large) csv_error(file, line, column, "a number in the range of a double", shown(cell));
  csv_error(file, line, column, first_data_line ? "a number (a first line of names needs header = true)" : "a number",
            shown(cell));
}

/// What all readers of one numeric file share.
struct NumberFormat {
  fs::path file;
  char delimiter;
  bool allow_inf;

  /// The cells of one line into `to`; returns how many there are and writes no more than `room`.
  std::size_t parse(std::string_view line, std::int64_t number, bool first_data_line, double* to,
                    std::size_t room) const {
    const char* p = line.data();
    const char* const end = p + line.size();
    for (std::size_t column = 0;; ++column) {
      double value = 0;
      auto [stop, error] = std::from_chars(p, end, value);
      if (error != std::errc() || (stop != end && *stop != delimiter) || !std::isfinite(value)) {
        const void* d = std::memchr(p, delimiter, static_cast<std::size_t>(end - p));
        stop = d ? static_cast<const char*>(d) : end;
        const auto cell = trimmed({p, static_cast<std::size_t>(stop - p)}, delimiter);
        const Cell kind = parse_cell(cell, value);
        if (kind != Cell::number && !(kind == Cell::infinite && allow_inf))
          refuse_cell(file, number, column + 1, cell, kind, first_data_line);
      }
      if (column < room) to[column] = value;
      if (stop == end) return column + 1;
      p = stop + 1;
    }
  }
  /// Throws unless the line has exactly n cells.
  void parse_exactly(std::string_view line, std::int64_t number, double* to, std::size_t n) const {
    if (const std::size_t found = parse(line, number, false, to, n); found != n)
      csv_error(file, number, 0, fmt::format("{} cells as in the lines before", n), fmt::format("{}", found));
  }
};

void require_header(const CsvOptions& o, const fs::path& file) {
  if (!o.header)
    throw ConfigError("header", "",
                      fmt::format("true or false for {}: whether its first line holds names is stated, "
                                  "because a header of numbers looks like data",
                                  file.string()));
  if (o.delimiter == '"' || o.delimiter == '\n' || o.delimiter == '\r' || o.delimiter == '\0' || o.delimiter == '.')
    throw ConfigError("delimiter", shown({&o.delimiter, 1}),
                      "a character that cannot be part of a number, quote or line end");
}

void require_size(const InputFile& f, const CsvOptions& o) {
  if (f.bytes() > o.max_bytes)
    throw DataError(f.path().string(), "size", fmt::format("at most {} bytes", o.max_bytes),
                    fmt::format("{} bytes", f.bytes()));
}

std::string_view without_bom(std::string_view line) { return line.starts_with("\xEF\xBB\xBF") ? line.substr(3) : line; }

/// One record of RFC 4180 from the front of `text`; moves `text` past it and counts its lines.
std::vector<std::string> parse_record(std::string_view& text, char delimiter, const fs::path& file,
                                      std::int64_t& line) {
  std::vector<std::string> cells;
  const std::int64_t first_line = line;
  for (;;) {
    std::string cell;
    if (!text.empty() && text.front() == '"') {
      text.remove_prefix(1);
      for (;;) {
        const auto quote = text.find('"');
        if (quote == text.npos) csv_error(file, first_line, cells.size() + 1, "a closing quote", "the end of the file");
        const auto piece = text.substr(0, quote);
        line += std::count(piece.begin(), piece.end(), '\n');
        cell += piece;
        text.remove_prefix(quote + 1);
        if (text.empty() || text.front() != '"') break;
        cell += '"';
        text.remove_prefix(1);
      }
      if (!text.empty() && text.front() == '\r') text.remove_prefix(1);
      if (!text.empty() && text.front() != delimiter && text.front() != '\n')
        csv_error(file, line, cells.size() + 1, "a delimiter after the closing quote", shown(text.substr(0, 1)));
    } else {
      std::size_t stop = 0;
      while (stop < text.size() && text[stop] != delimiter && text[stop] != '\n') ++stop;
      auto piece = text.substr(0, stop);
      if (!piece.empty() && piece.back() == '\r' && (stop == text.size() || text[stop] == '\n')) piece.remove_suffix(1);
      cell = trimmed(piece, delimiter);
      text.remove_prefix(stop);
    }
    if (cell.find('\0') != cell.npos) csv_error(file, line, cells.size() + 1, "text", "a NUL byte");
    cells.push_back(std::move(cell));
    if (text.empty()) return cells;
    const char c = text.front();
    text.remove_prefix(1);
    if (c == '\n') {
      ++line;
      return cells;
    }
  }
}

/// Reads the whole file once. `on_names` gets the header if there is one; `on_line` each line of numbers as
/// (its number, where it begins, its cells). Returns the number of columns.
std::size_t scan_numbers(const InputFile& input, const CsvOptions& o, std::vector<std::string>& names,
                         const std::function<void(std::uint64_t offset, std::span<const double> cells)>& on_line) {
  const NumberFormat format{input.path(), o.delimiter, o.allow_inf};
  LineReader lines(input);
  std::string_view line;
  std::int64_t number = 0, blank = 0;
  std::vector<double> cells;
  while (lines.next(line)) {
    ++number;
    if (number == 1) {
      line = without_bom(line);
      if (*o.header) {
        std::int64_t one = 1;
        names = parse_record(line, o.delimiter, input.path(), one);
        continue;
      }
    }
    if (line.empty()) {  // only at the end of the file
      if (!blank) blank = number;
      continue;
    }
    if (blank) csv_error(input.path(), blank, 0, "numbers", "an empty line");
    if (cells.empty()) {
      // every cell but the last has a delimiter behind it
      cells.resize(static_cast<std::size_t>(std::count(line.begin(), line.end(), o.delimiter)) + 1);
      if (*o.header && names.size() != cells.size()) {
        format.parse(line, number, false, cells.data(), cells.size());
        csv_error(input.path(), number, 0, fmt::format("{} cells as in the header", names.size()),
                  fmt::format("{}", cells.size()));
      }
      format.parse(line, number, number == 1, cells.data(), cells.size());
    } else {
      format.parse_exactly(line, number, cells.data(), cells.size());
    }
    on_line(lines.offset(), cells);
    if (o.head_only) break;
  }
  if (cells.empty())
    throw DataError(input.path().string(), "", "at least one line of numbers",
                    number ? "only a header or empty lines" : "an empty file");
  return cells.size();
}

/// Remembers where every kLinesPerMark-th line begins; a read in order goes on where the last one stopped.
class CsvSource final : public SampleSource {
 public:
  CsvSource(const fs::path& file, const CsvOptions& o, std::vector<std::string>& names)
      : input_(file), format_{file, o.delimiter, o.allow_inf}, header_lines_(*o.header ? 1 : 0) {
    require_size(input_, o);
    columns_ = scan_numbers(input_, o, names, [&](std::uint64_t offset, std::span<const double>) {
      if (frames_++ % kLinesPerMark == 0) marks_.push_back(offset);
    });
    reader_ = std::make_unique<LineReader>(input_, marks_[0]);
  }
  Index columns() const { return static_cast<Index>(columns_); }
  std::int64_t frames() const override { return frames_; }

  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || out.frames < 0 || first + out.frames > frames_ || out.rows != columns())
      throw DataError(input_.path().string(), "frames",
                      fmt::format("{} rows in a range inside [0, {})", columns_, frames_),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    std::lock_guard lock(mutex_);
    std::string_view line;
    if (first < at_ || first - at_ > kLinesPerMark) {
      at_ = first / kLinesPerMark * kLinesPerMark;
      reader_ = std::make_unique<LineReader>(input_, marks_[static_cast<std::size_t>(at_ / kLinesPerMark)]);
    }
    std::vector<double> cells(columns_);
    for (const std::int64_t end = first + out.frames; at_ < end; ++at_) {
      if (!reader_->next(line))
        throw DataError(input_.path().string(), "", fmt::format("{} lines", frames_),
                        fmt::format("{}: it changed", at_));
      if (at_ < first) continue;
      if (at_ == 0) line = without_bom(line);
      format_.parse_exactly(line, at_ + 1 + header_lines_, cells.data(), columns_);
      copy_frames(ConstFrames(cells.data(), Scalar::f64, columns(), 1, columns()), out.slice(at_ - first, 1));
    }
  }

 private:
  InputFile input_;
  NumberFormat format_;
  std::int64_t header_lines_, frames_ = 0;
  std::size_t columns_ = 0;
  std::vector<std::uint64_t> marks_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<LineReader> reader_;
  mutable std::int64_t at_ = 0;  ///< frame that reader_ gives next
};

void append_cell(std::string& to, std::string_view text, char delimiter, bool only_column) {
  const bool plain = text.find_first_of("\"\r\n") == text.npos && text.find(delimiter) == text.npos &&
                     trimmed(text, delimiter).size() == text.size() && !(only_column && text.empty());
  if (plain) {
    to += text;
    return;
  }
  to += '"';
  for (const char c : text) to.append(c == '"' ? 2 : 1, c);
  to += '"';
}

void append_cell(std::string& to, double value, bool only_column) {
  // an empty line would not be read back as a missing cell
  if (!std::isnan(value)) fmt::format_to(std::back_inserter(to), "{}", value);
  else if (only_column) to += "NaN";
}

/// Collects text and writes it in blocks to a file that appears only at commit().
class TextWriter {
 public:
  explicit TextWriter(const fs::path& file) : target_(file), file_(file), out_(target_.path(), std::ios::binary) {}
  std::string text;
  void end_line() {
    text += '\n';
    if (text.size() >= kCsvBlock) flush();
  }
  void commit() {
    flush();
    out_.close();
    if (!out_) throw DataError(file_.string(), "", "a file that can be written", std::strerror(errno));
    target_.commit();
  }

 private:
  void flush() {
    out_.write(text.data(), static_cast<std::streamsize>(text.size()));
    text.clear();
  }
  AtomicPath target_;
  fs::path file_;
  std::ofstream out_;
};

}  // namespace

CsvTable read_csv(const fs::path& file, const CsvOptions& o) {
  require_header(o, file);
  const InputFile input(file);
  require_size(input, o);
  CsvTable table;
  Index n = 0;
  scan_numbers(input, o, table.names, [&](std::uint64_t, std::span<const double> cells) {
    const Index rows = static_cast<Index>(cells.size());
    if (n == table.values.cols()) table.values.conservativeResize(rows, std::max<Index>(1024, 2 * n));
    std::copy(cells.begin(), cells.end(), table.values.data() + n++ * rows);
  });
  table.values.conservativeResize(Eigen::NoChange, n);
  return table;
}

CsvStream open_csv(const fs::path& file, const CsvOptions& o) {
  require_header(o, file);
  CsvStream s;
  auto source = std::make_shared<CsvSource>(file, o, s.names);
  s.columns = source->columns();
  s.samples = std::move(source);
  return s;
}

Table read_csv_table(const fs::path& file, const CsvOptions& o) {
  require_header(o, file);
  const std::string text = read_file(file, o.max_bytes);
  std::string_view rest = without_bom(text);
  std::int64_t line = 1;
  Table table;
  table.name = file.stem().string();
  if (*o.header && !rest.empty()) {
    std::set<std::string> seen;
    for (auto& name : parse_record(rest, o.delimiter, file, line)) {
      if (!name.empty() && !seen.insert(name).second)
        csv_error(file, 1, table.columns.size() + 1, "column names that differ", shown(name) + " twice");
      table.columns.push_back({.name = std::move(name), .numbers = {}, .text = {}});
    }
  }
  std::size_t rows = 0;
  while (!rest.empty()) {
    if (rest.find_first_not_of("\r\n") == rest.npos) break;  // empty lines at the end
    const std::int64_t first = line;
    auto cells = parse_record(rest, o.delimiter, file, line);
    if (rows == 0 && !*o.header)
      for (std::size_t c = 1; c <= cells.size(); ++c)
        table.columns.push_back({.name = std::to_string(c), .numbers = {}, .text = {}});
    if (cells.size() != table.columns.size())
      csv_error(file, first, 0, fmt::format("{} cells as in the lines before", table.columns.size()),
                fmt::format("{}", cells.size()));
    for (std::size_t c = 0; c < cells.size(); ++c) table.columns[c].text.push_back(std::move(cells[c]));
    ++rows;
  }
  if (rows == 0) throw DataError(file.string(), "", "at least one line below the header", "none");
  for (auto& column : table.columns) {
    std::vector<double> numbers(rows);
    bool numeric = true;
    for (std::size_t r = 0; r < rows && numeric; ++r) {
      const Cell kind = parse_cell(column.text[r], numbers[r]);
      numeric = kind == Cell::number || (kind == Cell::infinite && o.allow_inf);
    }
    if (numeric) {
      column.text.clear();
      column.numbers = std::move(numbers);
    } else {
      for (auto& cell : column.text)
        if (is_missing(cell)) cell.clear();
    }
  }
  return table;
}

void write_csv(const fs::path& file, const Table& table, char delimiter) {
  const std::size_t rows = table.columns.empty() ? 0 : table.columns[0].size();
  const bool only = table.columns.size() == 1;
  TextWriter out(file);
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    const auto& column = table.columns[c];
    if (column.size() != rows)
      throw DataError(file.string(), column.name, fmt::format("{} rows as in the first column", rows),
                      fmt::format("{}", column.size()));
    if (c) out.text += delimiter;
    append_cell(out.text, column.name, delimiter, only);
  }
  out.end_line();
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      if (c) out.text += delimiter;
      const auto& column = table.columns[c];
      if (column.is_text()) append_cell(out.text, column.text[r], delimiter, only);
      else append_cell(out.text, column.numbers[r], only);
    }
    out.end_line();
  }
  out.commit();
}

void write_csv(const fs::path& file, ConstFrames frames, const std::vector<std::string>& names, char delimiter) {
  if (!names.empty() && static_cast<Index>(names.size()) != frames.rows)
    throw DataError(file.string(), "names", fmt::format("{}, one for each row", frames.rows),
                    fmt::format("{}", names.size()));
  const bool only = frames.rows == 1;
  TextWriter out(file);
  for (std::size_t c = 0; c < names.size(); ++c) {
    if (c) out.text += delimiter;
    append_cell(out.text, names[c], delimiter, only);
  }
  if (!names.empty()) out.end_line();
  for (Index k = 0; k < frames.frames; ++k) {
    for (Index r = 0; r < frames.rows; ++r) {
      if (r) out.text += delimiter;
      if (frames.scalar == Scalar::f64) {
        append_cell(out.text, frames.as<double>().frame(k)[r], only);
      } else {
        const float v = frames.as<float>().frame(k)[r];
        if (std::isnan(v)) append_cell(out.text, v, only);
        else fmt::format_to(std::back_inserter(out.text), "{}", v);  // the shortest text of a float is shorter
      }
    }
    out.end_line();
  }
  out.commit();
}

}  // namespace percept::io
