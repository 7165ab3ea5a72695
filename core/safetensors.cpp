#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/model.h"

namespace percept {

static_assert(std::endian::native == std::endian::little, "safetensors hold little-endian arrays");

std::size_t Tensor::elements() const {
  std::size_t n = 1;
  for (auto s : shape) n *= static_cast<std::size_t>(s);
  return n;
}

namespace {
const char* type_word(Tensor::Type t) {
  return t == Tensor::Type::u8 ? "U8" : t == Tensor::Type::f32 ? "F32" : t == Tensor::Type::f64 ? "F64" : "I64";
}
}  // namespace

std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  auto fail = [&](const std::string& field, const std::string& expected, const std::string& found) -> DataError {
    return DataError(file, field, expected, found);
  };
  std::uint64_t header_bytes = 0;
  if (bytes.size() < 8) throw fail("header", "at least 8 bytes", fmt::format("{} bytes", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > bytes.size() - 8)
    throw fail("header", fmt::format("a length of at most {} bytes", bytes.size() - 8),
               fmt::format("{}", header_bytes));
  const auto header = parse_json(
      {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(header_bytes)}, file + ": header");
  if (!header.is_table()) throw fail("header", "a JSON object", header.type_name());
  const auto data = bytes.subspan(8 + static_cast<std::size_t>(header_bytes));
  std::map<std::string, Tensor> all;
  for (auto& [name, entry] : header.as_table()) {
    if (name == "__metadata__") continue;
    const Value* dtype = entry.find("dtype");
    const Value* shape = entry.find("shape");
    const Value* offsets = entry.find("data_offsets");
    if (!dtype || !dtype->is_string() || !shape || !shape->is_array() || !offsets || !offsets->is_array() ||
        offsets->size() != 2)
      throw fail(name, "dtype, shape and two data_offsets", to_json(entry));
    Tensor t;
    const auto& word = dtype->as_string();
    if (word == "U8") t.type = Tensor::Type::u8;
    else if (word == "F32") t.type = Tensor::Type::f32;
    else if (word == "F64") t.type = Tensor::Type::f64;
    else if (word == "I64") t.type = Tensor::Type::i64;
    else throw fail(name + ".dtype", "U8, F32, F64 or I64", word);
    std::uint64_t n = t.element_bytes();
    for (auto& s : shape->as_array()) {
      if (!s.is_integer() || s.as_integer() < 0) throw fail(name + ".shape", "integers of at least 0", to_json(*shape));
      const auto d = static_cast<std::uint64_t>(s.as_integer());
      if (d != 0 && n > data.size() / d) throw fail(name + ".shape", "an array inside the file", to_json(*shape));
      n *= d;
      t.shape.push_back(s.as_integer());
    }
    const auto& o = offsets->as_array();
    if (!o[0].is_integer() || !o[1].is_integer() || o[0].as_integer() < 0 || o[1].as_integer() < o[0].as_integer() ||
        static_cast<std::uint64_t>(o[1].as_integer()) > data.size() ||
        static_cast<std::uint64_t>(o[1].as_integer() - o[0].as_integer()) != n)
      throw fail(name + ".data_offsets", fmt::format("{} bytes inside the {} of the file", n, data.size()),
                 to_json(*offsets));
    const auto part = data.subspan(static_cast<std::size_t>(o[0].as_integer()), static_cast<std::size_t>(n));
    t.data.assign(part.begin(), part.end());
    if (!all.emplace(name, std::move(t)).second) throw fail(name, "each name once", "a second array of that name");
  }
  return all;
}

std::map<std::string, Tensor> read_safetensors(const std::filesystem::path& file) {
  const auto text = read_file(file);
  return parse_safetensors(std::as_bytes(std::span(text.data(), text.size())), file.string());
}

std::string format_safetensors(const std::map<std::string, Tensor>& tensors) {
  // bytes last, so that every array lies on a multiple of its elements' size
  std::vector<std::pair<const std::string*, const Tensor*>> order;
  for (const bool bytes : {false, true})
    for (auto& [name, t] : tensors)
      if ((t.type == Tensor::Type::u8) == bytes) order.emplace_back(&name, &t);
  Value header = Value::table();
  std::int64_t at = 0;
  for (auto& [name, tensor] : order) {
    const Tensor& t = *tensor;
    const auto n = static_cast<std::int64_t>(t.data.size());
    Value shape = Value::array();
    for (auto s : t.shape) shape.push_back(s);
    header[*name] =
        Value::object({{"dtype", type_word(t.type)}, {"shape", shape}, {"data_offsets", Value::array({at, at + n})}});
    at += n;
  }
  std::string head = to_json(header);
  head.resize((head.size() + 7) / 8 * 8, ' ');  // arrays start on a multiple of 8
  const std::uint64_t n = head.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  out += head;
  for (auto& [name, t] : order) out.append(reinterpret_cast<const char*>(t->data.data()), t->data.size());
  return out;
}

}  // namespace percept
