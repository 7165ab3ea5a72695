#include "core/stage.h"

#include <fmt/format.h>

#include <cstring>

#include "core/error.h"

namespace percept {

namespace {
// layout of a saved state: per array {u32 name length, name, u64 bytes, data}
struct Saver final : StateVisitor {
  std::vector<std::byte>& out;
  explicit Saver(std::vector<std::byte>& o) : out(o) {}
  void append(const void* p, std::size_t n) {
    auto* b = static_cast<const std::byte*>(p);
    out.insert(out.end(), b, b + n);
  }
  void raw(const char* name, void* data, std::size_t bytes) noexcept override {
    const auto length = static_cast<std::uint32_t>(std::strlen(name));
    const std::uint64_t size = bytes;
    append(&length, sizeof length);
    append(name, length);
    append(&size, sizeof size);
    append(data, bytes);
  }
};
struct Restorer final : StateVisitor {
  std::span<const std::byte> in;
  bool apply = false;
  std::string wrong;
  void raw(const char* name, void* data, std::size_t bytes) noexcept override {
    if (!wrong.empty()) return;
    std::uint32_t length = 0;
    std::uint64_t size = 0;
    const auto expected = std::strlen(name);
    if (in.size() < sizeof length) return refuse(name);
    std::memcpy(&length, in.data(), sizeof length);
    if (length != expected || in.size() < sizeof length + length + sizeof size ||
        std::memcmp(in.data() + sizeof length, name, length) != 0)
      return refuse(name);
    std::memcpy(&size, in.data() + sizeof length + length, sizeof size);
    in = in.subspan(sizeof length + length + sizeof size);
    if (size != bytes || in.size() < bytes) return refuse(name);
    if (apply && bytes) std::memcpy(data, in.data(), bytes);
    in = in.subspan(bytes);
  }
  void refuse(const char* name) noexcept { wrong = name; }
};
struct Measurer final : StateVisitor {
  std::size_t total = 0;
  void raw(const char*, void*, std::size_t bytes) noexcept override { total += bytes; }
};
// swap: no names are stored, so nothing is allocated; sizes are compared in order
struct CopyOut final : StateVisitor {
  std::byte* at;
  std::size_t room;
  bool ok = true;
  CopyOut(std::byte* p, std::size_t n) : at(p), room(n) {}
  void raw(const char*, void* data, std::size_t bytes) noexcept override {
    if (!ok || bytes > room) {
      ok = false;
      return;
    }
    if (bytes) std::memcpy(at, data, bytes);
    at += bytes;
    room -= bytes;
  }
};
struct CopyIn final : StateVisitor {
  const std::byte* at;
  explicit CopyIn(const std::byte* p) : at(p) {}
  void raw(const char*, void* data, std::size_t bytes) noexcept override {
    if (bytes) std::memcpy(data, at, bytes);
    at += bytes;
  }
};
struct Signature final : StateVisitor {
  std::uint64_t hash = 1469598103934665603ull;
  void mix(const void* p, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) hash = (hash ^ static_cast<const unsigned char*>(p)[i]) * 1099511628211ull;
  }
  void raw(const char* name, void*, std::size_t bytes) noexcept override {
    mix(name, std::strlen(name));
    mix(&bytes, sizeof bytes);
  }
};
}  // namespace

std::vector<std::byte> save_state(Stage& stage) {
  std::vector<std::byte> out;
  Saver s(out);
  stage.visit_state(s);
  return out;
}

void restore_state(Stage& stage, const std::vector<std::byte>& state) {
  // checked whole before anything is changed, so that a refused state leaves the stage as it was
  for (bool apply : {false, true}) {
    Restorer r;
    r.in = state;
    r.apply = apply;
    stage.visit_state(r);
    if (!r.wrong.empty()) throw Error(fmt::format("state does not fit this stage at array '{}'", r.wrong));
    if (!r.in.empty()) throw Error(fmt::format("state does not fit this stage: {} bytes left over", r.in.size()));
  }
}

std::size_t state_bytes(Stage& stage) {
  Measurer m;
  stage.visit_state(m);
  return m.total;
}

std::uint64_t state_signature(Stage& stage) {
  Signature s;
  stage.visit_state(s);
  return s.hash;
}

bool copy_state(Stage& from, Stage& to, std::vector<std::byte>& scratch) noexcept {
  if (state_signature(from) != state_signature(to)) return false;
  CopyOut out(scratch.data(), scratch.size());
  from.visit_state(out);
  if (!out.ok) return false;
  CopyIn in(scratch.data());
  to.visit_state(in);
  return true;
}

void require(bool ok, const Context& context, const std::string& key, const std::string& found,
             const std::string& expected) {
  if (!ok) throw ConfigError(key.empty() ? context.node : context.node + "." + key, found, expected);
}

void require_time(const StreamFormat& in, const Context& context, const char* stage) {
  if (in.axis != Axis::time)
    throw ConfigError(context.node, "",
                      fmt::format("frames with a clock ({} works in time)", stage) + ", found " + in.describe());
  if (!(in.rate_hz > 0) || !std::isfinite(in.rate_hz))
    throw ConfigError(context.node + ".rate_hz", fmt::format("{} Hz", in.rate_hz), "a rate above zero");
  if (in.size() <= 0) throw ConfigError(context.node, "", "at least one row, found " + in.describe());
}

void require_items(const StreamFormat& in, const Context& context, const char* stage) {
  if (in.axis != Axis::item)
    throw ConfigError(
        context.node, "",
        fmt::format("items ({} works on trials, subjects or images)", stage) + ", found " + in.describe());
  if (in.size() <= 0) throw ConfigError(context.node, "", "at least one row, found " + in.describe());
}

}  // namespace percept
