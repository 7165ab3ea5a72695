/// A small tree of configuration and metadata: what TOML and JSON files become.
/// The heavy parsers stay in value.cpp and toml.cpp, so that a stage's source stays cheap to compile.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace percept {

/// null, bool, integer, real, string, array or table (keys keep their order).
/// `line` is the line of the file it was read from, 0 when it was made in code.
class Value {
 public:
  using Array = std::vector<Value>;
  using Table = std::vector<std::pair<std::string, Value>>;
  enum class Type { null, boolean, integer, real, string, array, table };

  Value() = default;
  Value(std::nullptr_t) {}
  Value(bool b) : data_(b) {}
  template <class T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) Value(T v) : data_(static_cast<std::int64_t>(v)) {}
  template <class T>
  requires std::is_floating_point_v<T> Value(T v) : data_(static_cast<double>(v)) {}
  Value(const char* s) : data_(std::string(s)) {}
  Value(std::string_view s) : data_(std::string(s)) {}
  Value(std::string s) : data_(std::move(s)) {}
  template <class T>
  Value(const std::vector<T>& items) : data_(Array(items.begin(), items.end())) {}
  static Value array(Array items = {}) { return Value(Tag{}, std::move(items)); }
  static Value table(Table items = {}) { return Value(Tag{}, std::move(items)); }
  /// Value::object({{"rows", 3}, {"name", "x"}})
  static Value object(std::initializer_list<std::pair<std::string, Value>> items) { return table(Table(items)); }

  Type type() const { return static_cast<Type>(data_.index()); }
  bool is_null() const { return type() == Type::null; }
  bool is_bool() const { return type() == Type::boolean; }
  bool is_integer() const { return type() == Type::integer; }
  bool is_number() const { return type() == Type::integer || type() == Type::real; }
  bool is_string() const { return type() == Type::string; }
  bool is_array() const { return type() == Type::array; }
  bool is_table() const { return type() == Type::table; }
  const char* type_name() const;

  /// The getters throw Error when the type is another; an integer is also a number.
  bool as_bool() const;
  std::int64_t as_integer() const;
  double as_number() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  const Table& as_table() const;
  Array& as_array();
  Table& as_table();

  /// Looks a key up; nullptr where this is no table or has no such key.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// Throws Error naming the key when it is missing.
  const Value& at(std::string_view key) const;
  /// Inserts null when missing; turns null into a table.
  Value& operator[](std::string_view key);
  /// The value at "a.b.c", or nullptr.
  const Value* find_path(std::string_view dotted) const;
  /// Sets "a.b.c", making the tables on the way.
  void set_path(std::string_view dotted, Value v);
  bool erase(std::string_view key);
  void push_back(Value v);
  std::size_t size() const;

  /// `fallback` when the key is missing.
  std::string get(std::string_view key, const char* fallback) const;
  std::string get(std::string_view key, const std::string& fallback) const;
  double get(std::string_view key, double fallback) const;
  std::int64_t get(std::string_view key, std::int64_t fallback) const;
  std::int64_t get(std::string_view key, int fallback) const { return get(key, static_cast<std::int64_t>(fallback)); }
  bool get(std::string_view key, bool fallback) const;

  /// Equal content; source lines do not count.
  bool operator==(const Value& other) const { return data_ == other.data_; }

  int line = 0;

 private:
  struct Tag {};
  template <class T>
  Value(Tag, T v) : data_(std::move(v)) {}
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Table> data_;
};

/// JSON text. Reals print with the fewest digits that read back to the same bits; NaN and infinities print as null.
/// indent < 0: one line.
std::string to_json(const Value& v, int indent = -1);
/// Throws DataError naming `file` and the byte when the text is not JSON.
Value parse_json(std::string_view text, const std::string& file = "json");
Value read_json(const std::filesystem::path& file);

/// Throws DataError naming file, line and column when the text is not TOML.
Value parse_toml(std::string_view text, const std::string& file = "toml");
Value read_toml(const std::filesystem::path& file);
/// One TOML value as written after a "=": 1, 0.5, true, "text", [1, 2]. A bare word is taken as a string.
Value parse_toml_value(std::string_view text);
/// TOML text of a table.
std::string to_toml(const Value& table);

}  // namespace percept
