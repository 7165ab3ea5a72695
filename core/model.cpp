#include "core/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/files.h"

namespace percept {

namespace {
template <class M>
Tensor tensor_of(const M& m, Tensor::Type type) {
  using S = typename M::Scalar;
  Tensor t;
  t.type = type;
  if (m.cols() == 1) t.shape = {m.rows()};
  else t.shape = {m.rows(), m.cols()};
  t.data.resize(static_cast<std::size_t>(m.size()) * sizeof(S));
  // C order: a matrix is stored row by row
  Eigen::Map<Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(reinterpret_cast<S*>(t.data.data()),
                                                                                m.rows(), m.cols()) = m;
  return t;
}
/// One order of the keys, so that a digest does not depend on who wrote the table.
Value sorted(const Value& v) {
  if (v.is_table()) {
    auto t = v.as_table();
    std::sort(t.begin(), t.end(), [](auto& a, auto& b) { return a.first < b.first; });
    for (auto& [k, item] : t) item = sorted(item);
    return Value::table(std::move(t));
  }
  if (v.is_array()) {
    auto a = v.as_array();
    for (auto& item : a) item = sorted(item);
    return Value::array(std::move(a));
  }
  return v;
}
}  // namespace

void Model::set(const std::string& name, const Eigen::MatrixXd& m) { tensors_[name] = tensor_of(m, Tensor::Type::f64); }
void Model::set(const std::string& name, double v) { set(name, Eigen::MatrixXd::Constant(1, 1, v)); }
void Model::set_u8(const std::string& name, const Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic>& m) {
  tensors_[name] = tensor_of(m, Tensor::Type::u8);
}
void Model::set_f32(const std::string& name, const Eigen::MatrixXf& m) {
  tensors_[name] = tensor_of(m, Tensor::Type::f32);
}

Eigen::MatrixXd Model::matrix(const std::string& name, Index rows, Index cols) const {
  const auto at = tensors_.find(name);
  const std::string who = "model of " + meta.get("stage", "an unnamed stage");
  if (at == tensors_.end()) throw DataError(who, name, "an array of that name", "none");
  const Tensor& t = at->second;
  if (t.shape.size() > 2 || t.type == Tensor::Type::i64)
    throw DataError(who, name, "a real vector or matrix", fmt::format("{} dimensions", t.shape.size()));
  const Index r = t.shape.empty() ? 1 : t.shape[0], c = t.shape.size() < 2 ? 1 : t.shape[1];
  if ((rows >= 0 && r != rows) || (cols >= 0 && c != cols))
    throw DataError(who, name, fmt::format("{} x {}", rows, cols), fmt::format("{} x {}", r, c));
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using RowMajorU8 = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  if (t.type == Tensor::Type::u8)
    return Eigen::Map<const RowMajorU8>(reinterpret_cast<const std::uint8_t*>(t.data.data()), r, c).cast<double>();
  if (t.type == Tensor::Type::f32)
    return Eigen::Map<const RowMajorF>(reinterpret_cast<const float*>(t.data.data()), r, c).cast<double>();
  return Eigen::Map<const RowMajor>(reinterpret_cast<const double*>(t.data.data()), r, c);
}
Eigen::VectorXd Model::vector(const std::string& name, Index rows) const { return matrix(name, rows, 1); }
double Model::number(const std::string& name) const { return matrix(name, 1, 1)(0, 0); }

std::vector<std::string> Model::input_rows() const {
  std::vector<std::string> names;
  if (auto* v = meta.find("input_rows"))
    for (auto& n : v->as_array()) names.push_back(n.as_string());
  return names;
}

bool Model::operator==(const Model& other) const {
  if (!(sorted(meta) == sorted(other.meta)) || tensors_.size() != other.tensors_.size()) return false;
  return std::equal(tensors_.begin(), tensors_.end(), other.tensors_.begin(), [](auto& a, auto& b) {
    return a.first == b.first && a.second.type == b.second.type && a.second.shape == b.second.shape &&
           a.second.data == b.second.data;
  });
}

std::string Model::digest() const { return sha256(to_json(sorted(meta)) + format_safetensors(tensors_)); }

void Model::save(const std::filesystem::path& folder) const {
  AtomicPath out(folder);
  std::filesystem::create_directories(out.path());
  Value m = meta;
  m["format_version"] = kFormatVersion;
  write_atomic(out.path() / "weights.safetensors", format_safetensors(tensors_));
  write_atomic(out.path() / "model.json", to_json(m, 2) + "\n");
  out.commit();
}

Model Model::load(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    throw DataError(folder.string(), "", "a model folder (model.json and weights.safetensors)",
                    std::filesystem::exists(folder) ? "a file" : "nothing");
  Model m;
  m.meta = read_json(folder / "model.json");
  const Value* version = m.meta.find("format_version");
  if (!version || !version->is_integer() || version->as_integer() != kFormatVersion)
    throw DataError((folder / "model.json").string(), "format_version", fmt::format("{}", kFormatVersion),
                    version ? to_json(*version) : "none");
  m.meta.erase("format_version");
  m.tensors_ = read_safetensors(folder / "weights.safetensors");
  return m;
}

TrainingMatrix Data::gather() const {
  TrainingMatrix t;
  const Index n = frames();
  t.x.resize(x_format().size(), n);
  t.y.resize(y_format().size(), n);
  t.keys.reserve(static_cast<std::size_t>(n));
  Index at = 0, segment = -1;
  pass([&](const TrainingBlock& b) {
    if (b.segment != segment) {
      t.segment_starts.push_back(at);
      segment = b.segment;
    }
    copy_frames(b.x, MutableFrames(t.x.data() + at * t.x.rows(), Scalar::f64, t.x.rows(), b.x.frames, t.x.rows()));
    if (t.y.rows())
      copy_frames(b.y, MutableFrames(t.y.data() + at * t.y.rows(), Scalar::f64, t.y.rows(), b.x.frames, t.y.rows()));
    t.keys.insert(t.keys.end(), b.keys.begin(), b.keys.end());
    t.groups.insert(t.groups.end(), b.groups.begin(), b.groups.end());
    at += b.x.frames;
  });
  return t;
}

MemoryData::MemoryData(StreamFormat x_format, StreamFormat y_format, TrainingMatrix data, Index block)
    : x_format_(std::move(x_format)), y_format_(std::move(y_format)), data_(std::move(data)), block_(block) {
  const Index n = data_.x.cols();
  if (data_.y.rows() && data_.y.cols() != n)
    throw Error(fmt::format("training data: {} frames of input but {} of target", n, data_.y.cols()), Exit::bad_input);
  x_format_.scalar = y_format_.scalar = Scalar::f64;
  if (data_.keys.empty()) {
    data_.keys.resize(static_cast<std::size_t>(n));
    std::iota(data_.keys.begin(), data_.keys.end(), 0);
  }
  if (data_.groups.empty()) data_.groups.assign(static_cast<std::size_t>(n), 0);
  if (data_.segment_starts.empty()) data_.segment_starts.push_back(0);
}

void MemoryData::pass(const std::function<void(const TrainingBlock&)>& f,
                      std::optional<std::uint64_t> shuffle_seed) const {
  struct Piece {
    Index first, n, segment;
  };
  std::vector<Piece> pieces;
  const Index n = frames();
  for (std::size_t s = 0; s < data_.segment_starts.size(); ++s) {
    const Index end = s + 1 < data_.segment_starts.size() ? data_.segment_starts[s + 1] : n;
    for (Index a = data_.segment_starts[s]; a < end; a += block_)
      pieces.push_back({a, std::min(block_, end - a), static_cast<Index>(s)});
  }
  if (shuffle_seed) {
    // keyed order: splitmix64 of (seed, first frame)
    auto key = [&](const Piece& p) {
      std::uint64_t z = *shuffle_seed + 0x9e3779b97f4a7c15ull * static_cast<std::uint64_t>(p.first + 1);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
      return z ^ (z >> 31);
    };
    std::sort(pieces.begin(), pieces.end(), [&](auto& a, auto& b) { return key(a) < key(b); });
  }
  for (auto& p : pieces) {
    TrainingBlock b;
    b.x = ConstFrames(data_.x.data() + p.first * data_.x.rows(), Scalar::f64, data_.x.rows(), p.n, data_.x.rows());
    b.y = ConstFrames(data_.y.data() + p.first * data_.y.rows(), Scalar::f64, data_.y.rows(), p.n, data_.y.rows());
    b.keys = std::span(data_.keys).subspan(static_cast<std::size_t>(p.first), static_cast<std::size_t>(p.n));
    b.groups = std::span(data_.groups).subspan(static_cast<std::size_t>(p.first), static_cast<std::size_t>(p.n));
    b.segment = p.segment;
    f(b);
  }
}

}  // namespace percept
