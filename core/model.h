/// What fitting leaves behind, and what fitting is given.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/stream.h"
#include "core/value.h"

namespace percept {

/// A named array of a model, as in safetensors: C order, last index fastest.
struct Tensor {
  enum class Type { u8, f32, f64, i64 };
  Type type = Type::f64;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
  std::size_t elements() const;
  std::size_t element_bytes() const { return type == Type::u8 ? 1 : type == Type::f32 ? 4 : 8; }
};

/// safetensors: 8 bytes of header length, a JSON header, raw little-endian arrays. Types U8, F32, F64, I64.
/// Throws DataError; sizes are checked against the file before anything is allocated.
std::map<std::string, Tensor> read_safetensors(const std::filesystem::path& file);
std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& file);
std::string format_safetensors(const std::map<std::string, Tensor>& tensors);

/// Everything a trained stage needs: `meta` (what, version, parameters, row names, digests, scores) and arrays.
/// Loading a model never executes code.
class Model {
 public:
  static constexpr int kFormatVersion = 1;

  Value meta = Value::table();

  void set(const std::string& name, const Eigen::MatrixXd& m);
  void set(const std::string& name, double v);
  void set_f32(const std::string& name, const Eigen::MatrixXf& m);
  void set_u8(const std::string& name, const Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic>& m);
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// The array as a matrix (a vector is one column). Throws DataError naming the model and the array when it is
  /// missing, or when rows or cols (>= 0) differ.
  Eigen::MatrixXd matrix(const std::string& name, Index rows = -1, Index cols = -1) const;
  Eigen::VectorXd vector(const std::string& name, Index rows = -1) const;
  double number(const std::string& name) const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  std::map<std::string, Tensor>& tensors() { return tensors_; }

  /// Row names of the input it was fitted on: `meta.input_rows`. Empty: not stated.
  std::vector<std::string> input_rows() const;
  /// Same bits in every array and the same meta.
  bool operator==(const Model& other) const;
  /// sha256 over meta and arrays.
  std::string digest() const;

  /// Folder with model.json and weights.safetensors; written aside and renamed into place.
  void save(const std::filesystem::path& folder) const;
  /// Throws DataError when a file is missing, broken or of another format version.
  static Model load(const std::filesystem::path& folder);

 private:
  std::map<std::string, Tensor> tensors_;
};

/// Training frames that belong together: x and y have the same number of frames.
struct TrainingBlock {
  ConstFrames x, y;                      ///< y has no rows when there is no target
  std::span<const std::int64_t> keys;    ///< frame index (time) or item key
  std::span<const std::int32_t> groups;  ///< run, subject or fold group of each frame
  Index segment = 0;                     ///< frames of one segment follow each other in time without a gap
};

/// Every training frame in memory, in double, in order.
struct TrainingMatrix {
  Eigen::MatrixXd x, y;  ///< rows x frames
  std::vector<std::int64_t> keys;
  std::vector<std::int32_t> groups;
  std::vector<Index> segment_starts;  ///< first column of each segment, rising, starts with 0
};

/// The training frames of one fold, and nothing else.
class Data {
 public:
  virtual ~Data() = default;
  virtual const StreamFormat& x_format() const = 0;
  virtual const StreamFormat& y_format() const = 0;  ///< no parts when there is no target
  virtual Index frames() const = 0;
  /// Gives every frame once, block by block; in order, or with the blocks in an order keyed by the seed.
  virtual void pass(const std::function<void(const TrainingBlock&)>& f,
                    std::optional<std::uint64_t> shuffle_seed = std::nullopt) const = 0;
  /// Copies everything into memory.
  TrainingMatrix gather() const;
};

/// Data held in memory, for tests and for small sets.
class MemoryData final : public Data {
 public:
  /// x: rows x frames, y: rows x frames or empty. Throws Error when the frame counts differ.
  MemoryData(StreamFormat x_format, StreamFormat y_format, TrainingMatrix data, Index block = 4096);
  const StreamFormat& x_format() const override { return x_format_; }
  const StreamFormat& y_format() const override { return y_format_; }
  Index frames() const override { return data_.x.cols(); }
  void pass(const std::function<void(const TrainingBlock&)>& f,
            std::optional<std::uint64_t> shuffle_seed) const override;

 private:
  StreamFormat x_format_, y_format_;
  TrainingMatrix data_;
  Index block_;
};

/// Learns a model from training data. Never sees test rows.
class Fitter {
 public:
  virtual ~Fitter() = default;
  /// Throws DataError / ConfigError when the data cannot be fitted (fewer rows than features, constant target, ...).
  virtual Model fit(const Data& data, Context& context) = 0;
};

}  // namespace percept
