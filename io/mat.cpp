#include "io/mat.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <matio.h>

#include <limits>
#include <memory>

#include "core/error.h"
#include "io/hdf5.h"
#include "io/hdf5_handle.h"
#include "io/input_file.h"
#include "io/mat_layout.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

const char* mat_class_name(const matvar_t& v) {
  if (v.isLogical) return "logical";
  switch (v.class_type) {
    case MAT_C_CELL:
      return "cell";
    case MAT_C_STRUCT:
      return "struct";
    case MAT_C_OBJECT:
      return "object";
    case MAT_C_CHAR:
      return "char";
    case MAT_C_SPARSE:
      return "sparse";
    case MAT_C_DOUBLE:
      return "double";
    case MAT_C_SINGLE:
      return "single";
    case MAT_C_INT8:
      return "int8";
    case MAT_C_UINT8:
      return "uint8";
    case MAT_C_INT16:
      return "int16";
    case MAT_C_UINT16:
      return "uint16";
    case MAT_C_INT32:
      return "int32";
    case MAT_C_UINT32:
      return "uint32";
    case MAT_C_INT64:
      return "int64";
    case MAT_C_UINT64:
      return "uint64";
    case MAT_C_FUNCTION:
      return "function";
    default:
      return "opaque";
  }
}

/// Bytes of one number of a class; 0 for what is not numbers.
std::size_t number_bytes(matio_classes c) {
  switch (c) {
    case MAT_C_INT8:
    case MAT_C_UINT8:
      return 1;
    case MAT_C_INT16:
    case MAT_C_UINT16:
      return 2;
    case MAT_C_INT32:
    case MAT_C_UINT32:
    case MAT_C_SINGLE:
      return 4;
    case MAT_C_INT64:
    case MAT_C_UINT64:
    case MAT_C_DOUBLE:
      return 8;
    default:
      return 0;
  }
}

struct VarFree {
  void operator()(matvar_t* v) const { Mat_VarFree(v); }
};
using MatVar = std::unique_ptr<matvar_t, VarFree>;

/// An open file; holds the lock of libhdf5, whose user matio is (and matio's log is global).
class MatFile {
 public:
  explicit MatFile(const fs::path& file) : path_(file) {
    // matio takes any other file for one of version 4, which has no signature
    const InputFile input(file);
    unsigned char end[4] = {};
    if (input.bytes() >= 128) input.read(124, end, 4);
    const int version = end[2] == 'I' ? end[1] << 8 | end[0] : end[0] << 8 | end[1];
    const bool order = (end[2] == 'I' && end[3] == 'M') || (end[2] == 'M' && end[3] == 'I');
    if (!order || (version != 0x0100 && version != 0x0200))
      throw DataError(file.string(), "", "a MATLAB file of version 5 or 7.3",
                      input.bytes() < 128 ? "a shorter file" : "another kind of file");
    bytes_ = input.bytes();
    if (version == 0x0100) check_mat5_layout(input, end[2] == 'M');
    Mat_LogInitFunc("percept", [](int, char*) {});
    mat_ = Mat_Open(file.c_str(), MAT_ACC_RDONLY);
    if (!mat_) throw DataError(file.string(), "", "a MATLAB file that matio can open", "one that it cannot");
  }
  ~MatFile() { Mat_Close(mat_); }
  MatFile(const MatFile&) = delete;
  MatFile& operator=(const MatFile&) = delete;
  mat_t* get() const { return mat_; }

  MatVariable describe(const matvar_t& v) const {
    MatVariable d;
    d.name = v.name ? v.name : "";
    d.type = mat_class_name(v);
    if (v.isComplex) d.type = "complex " + d.type;
    const std::size_t bytes = number_bytes(v.class_type);
    std::size_t numbers = 1;
    for (int a = 0; a < v.rank && v.dims; ++a) {
      const std::size_t s = v.dims[a];
      if (s > static_cast<std::size_t>(std::numeric_limits<Index>::max()) / 16 ||
          (s && numbers > std::numeric_limits<std::size_t>::max() / 16 / s))
        throw DataError(path_.string(), d.name, "a shape that can exist", "a larger one");
      numbers *= s;
      d.shape.push_back(static_cast<Index>(s));
    }
    d.readable = bytes > 0 && v.rank == 2 && !v.isComplex && numbers > 0;
    // zlib packs at most a thousand to one: more than that is a broken header, refused before memory is asked for
    if (d.readable && numbers > bytes_ * 1100 / bytes)
      throw DataError(path_.string(), d.name, "data that fit into the file",
                      fmt::format("a shape of ({})", fmt::join(d.shape, ", ")));
    return d;
  }

 private:
  Hdf5Lock lock_;
  fs::path path_;
  mat_t* mat_ = nullptr;
  std::uint64_t bytes_ = 0;
};

template <class T>
void convert_numbers(const void* from, Eigen::MatrixXd& to, const fs::path& file, const std::string& name) {
  const T* numbers = static_cast<const T*>(from);
  for (Index i = 0; i < to.size(); ++i) {
    const T v = numbers[i];
    to.data()[i] = static_cast<double>(v);
    if constexpr (std::is_integral_v<T> && sizeof(T) == 8)
      if (constexpr T kExact = T{1} << 53; v > kExact || (std::is_signed_v<T> && v < 0 - kExact))
        throw DataError(file.string(), name, "whole numbers up to 2^53, which a double holds", fmt::format("{}", v));
  }
}

std::vector<MatVariable> list_mat_unprobed(const fs::path& file) {
  const MatFile mat(file);
  std::vector<MatVariable> all;
  while (const MatVar v{Mat_VarReadNextInfo(mat.get())}) all.push_back(mat.describe(*v));
  return all;
}

/// A variable that describe() calls readable, with its data: as many numbers of its class as it says.
MatVar load_variable(const MatFile& mat, const fs::path& file, const std::string& name) {
  MatVar v{Mat_VarReadInfo(mat.get(), name.c_str())};
  // a second variable of this name may be another thing
  if (v && mat.describe(*v).readable && Mat_VarReadDataAll(mat.get(), v.get()) == 0 && v->data) {
    const std::size_t bytes = number_bytes(v->class_type);
    if (v->data_size == static_cast<int>(bytes) && v->nbytes == bytes * v->dims[0] * v->dims[1]) return v;
  }
  throw DataError(file.string(), name, "readable data", "what matio cannot read (truncated?)");
}

Eigen::MatrixXd read_mat_unprobed(const fs::path& file, const std::string& variable) {
  const auto all = list_mat_unprobed(file);
  std::vector<std::string> names, readable;
  const MatVariable* wanted = nullptr;
  for (const auto& v : all) {
    names.push_back(v.name);
    if (v.readable) readable.push_back(v.name);
    if (v.name == variable) wanted = &v;
  }
  if (names.empty()) throw DataError(file.string(), "", "at least one variable", "none that can be read");
  if (variable.empty() && readable.size() != 1)
    throw DataError(file.string(), "variable",
                    fmt::format("the name of one of {}", fmt::join(readable.empty() ? names : readable, ", ")),
                    "no name");
  if (!variable.empty() && !wanted)
    throw DataError(file.string(), "variable", fmt::format("one of {}", fmt::join(names, ", ")),
                    fmt::format("'{}'{}", variable, did_you_mean(variable, names)));
  const std::string name = variable.empty() ? readable[0] : variable;
  if (wanted && !wanted->readable)
    throw DataError(file.string(), name, "a real, full matrix of numbers with two dimensions",
                    fmt::format("{} of shape ({})", wanted->type, fmt::join(wanted->shape, ", ")));
  const MatFile mat(file);
  const MatVar v = load_variable(mat, file, name);
  Eigen::MatrixXd m(static_cast<Index>(v->dims[0]), static_cast<Index>(v->dims[1]));
  switch (v->class_type) {
    case MAT_C_DOUBLE:
      convert_numbers<double>(v->data, m, file, name);
      break;
    case MAT_C_SINGLE:
      convert_numbers<float>(v->data, m, file, name);
      break;
    case MAT_C_INT8:
      convert_numbers<std::int8_t>(v->data, m, file, name);
      break;
    case MAT_C_UINT8:
      convert_numbers<std::uint8_t>(v->data, m, file, name);
      break;
    case MAT_C_INT16:
      convert_numbers<std::int16_t>(v->data, m, file, name);
      break;
    case MAT_C_UINT16:
      convert_numbers<std::uint16_t>(v->data, m, file, name);
      break;
    case MAT_C_INT32:
      convert_numbers<std::int32_t>(v->data, m, file, name);
      break;
    case MAT_C_UINT32:
      convert_numbers<std::uint32_t>(v->data, m, file, name);
      break;
    case MAT_C_INT64:
      convert_numbers<std::int64_t>(v->data, m, file, name);
      break;
    default:
      convert_numbers<std::uint64_t>(v->data, m, file, name);
      break;
  }
  return m;
}

}  // namespace

std::vector<MatVariable> list_mat(const fs::path& file) {
  probe_foreign_mat(file);
  return list_mat_unprobed(file);
}

Eigen::MatrixXd read_mat(const fs::path& file, const std::string& variable) {
  probe_foreign_mat(file);
  return read_mat_unprobed(file, variable);
}

void walk_mat(const fs::path& file) {
  for (const auto& v : list_mat_unprobed(file))
    if (v.readable) load_variable(MatFile(file), file, v.name);
}

}  // namespace percept::io
