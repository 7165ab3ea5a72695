/// A recording: named streams, each with its own clock, tables and events.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/stream.h"
#include "core/value.h"

namespace percept {

/// Where samples come from: memory, a mapped file, or a file read block by block.
/// read() may be called from several threads at once.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual std::int64_t frames() const = 0;
  /// Frames [first, first + out.frames) into out, converted to out.scalar. Throws DataError.
  virtual void read(std::int64_t first, MutableFrames out) const = 0;
};

/// Samples held in memory (rows x frames).
class MemorySource final : public SampleSource {
 public:
  explicit MemorySource(Eigen::MatrixXd m) : m_(std::move(m)) {}
  std::int64_t frames() const override { return m_.cols(); }
  void read(std::int64_t first, MutableFrames out) const override;
  const Eigen::MatrixXd& matrix() const { return m_; }

 private:
  Eigen::MatrixXd m_;
};

struct Stream {
  std::string name;
  StreamFormat format;  ///< scalar is what the source holds; the graph converts
  std::shared_ptr<const SampleSource> samples;
  std::vector<std::int64_t> keys;  ///< item axis: rising key of each frame
  std::int64_t frames() const { return samples ? samples->frames() : 0; }
  /// The whole stream in double.
  Eigen::MatrixXd matrix() const;
};

/// A stream in memory. rows x frames; names may be empty.
Stream memory_stream(std::string name, Eigen::MatrixXd m, double rate_hz, double start_s = 0,
                     std::vector<std::string> row_names = {}, const std::string& unit = "1");

/// A table: columns of numbers (NaN = missing) or of text ("" = missing).
struct Column {
  std::string name;
  std::vector<double> numbers;  ///< used when text is empty
  std::vector<std::string> text;
  bool is_text() const { return !text.empty(); }
  std::size_t size() const { return is_text() ? text.size() : numbers.size(); }
  bool operator==(const Column&) const = default;
};
/// The different texts of a column in order, the names of its categories; none when it holds numbers.
std::vector<std::string> levels_of(const Column& column);
/// The numbers of a column; of texts their place among levels_of(), NaN where the cell is missing.
std::vector<double> codes_of(const Column& column);
struct Table {
  std::string name;
  std::vector<Column> columns;
  const Column* find(std::string_view column) const;
  bool operator==(const Table&) const = default;
};

/// Frames [first, first + n) of a stream as a stream of their own; no sample is copied.
Stream slice(const Stream& stream, std::int64_t first, std::int64_t n);
/// The items at these positions (rising), in that order.
Stream select(const Stream& stream, std::vector<std::int64_t> positions);

/// Throws ConfigError at the key `where`, with the labels there are, when no event has this one.
void require_label(const std::vector<Event>& events, const std::string& label, const std::string& where);

/// How a live recording was given to its graph: block after block, with what happened between two of them. A result
/// belongs to a partition; the same steps give the same bits again.
struct LivePartition {
  struct Step {
    int input = 0;
    Index frames = 0;
    std::int64_t repeat = 1;  ///< so many times in a row
  };
  /// Something that happened before a step.
  struct Action {
    enum class Kind : std::uint8_t { event, mask, unmask, swap };
    std::int64_t step = 0;  ///< number of the step, repeats counted
    Kind kind = Kind::event;
    int input = 0;
    Index row = 0;
    Event event = {};         ///< delivered with the step
    std::string node, model;  ///< of a swap: the model's folder
  };
  std::vector<std::string> inputs;
  std::vector<Step> steps;
  std::vector<Action> actions;  ///< by rising step
  bool finished = true;         ///< false: it was cut off, and nothing that stages held back came out
  Index largest() const;        ///< frames in the largest step
};

struct Recording {
  std::string name;
  Value meta = Value::table();  ///< entities, start time, digests ("input": {file: sha256}), notes
  std::vector<Stream> streams;
  std::vector<Table> tables;
  std::vector<Event> events;                            ///< by rising onset; id = position in this list
  std::shared_ptr<const LivePartition> partition = {};  ///< of a live recording

  const Stream* find(std::string_view stream) const;
  /// Throws ConfigError listing the streams there are.
  const Stream& stream(std::string_view name, const std::string& where) const;
  const Table* table(std::string_view name) const;
  /// Sentences a reader of any result must see ("PCA was fitted on the whole session upstream").
  std::vector<std::string> warnings() const;
};

}  // namespace percept
