#include "reconstruction/diffusion/weights.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace percept::diffusion {
namespace {

double bound_of(Index inputs) { return 1 / std::sqrt(static_cast<double>(inputs)); }
template <class T>
std::string text(const std::vector<T>& shape) {
  return fmt::format("{{{}}}", fmt::join(shape, ", "));
}

}  // namespace

Index WeightArray::size() const {
  Index n = 1;
  for (const Index s : shape) n *= s;
  return n;
}

void WeightList::linear(const std::string& name, Index out, Index in, double bias) {
  add({name + ".weights", {out, in}, 0, bound_of(in)});
  add({name + ".bias", {out}, bias, 0});
}
void WeightList::convolution(const std::string& name, Index out, Index in, Index side, bool zero) {
  add({name + ".weights", {out, in, side, side}, 0, zero ? 0 : bound_of(in * side * side)});
  add({name + ".bias", {out}, 0, 0});
}
void WeightList::normalisation(const std::string& name, Index channels) {
  add({name + ".gain", {channels}, 1, 0});
  add({name + ".offset", {channels}, 0, 0});
}
void WeightList::attention(const std::string& name, Index channels) {
  normalisation(name + ".norm", channels);
  convolution(name + ".in", 3 * channels, channels, 1);
  convolution(name + ".out", channels, channels, 1, true);
}
Index WeightList::size() const {
  Index n = 0;
  for (const WeightArray& a : arrays_) n += a.size();
  return n;
}

void require_weights(const Model& model, const WeightList& list, const std::string& where) {
  for (const WeightArray& a : list.arrays()) {
    const auto at = model.tensors().find(a.name);
    if (at == model.tensors().end()) throw DataError(where, a.name, "an array " + text(a.shape), "none");
    const Tensor& t = at->second;
    if (t.type != Tensor::Type::f32 || t.shape != std::vector<std::int64_t>(a.shape.begin(), a.shape.end()))
      throw DataError(where, a.name, text(a.shape) + " in float (is it a model of another architecture?)",
                      text(t.shape) + (t.type == Tensor::Type::f32 ? "" : " of another type"));
    const auto* values = reinterpret_cast<const float*>(t.data.data());
    for (Index i = 0; i < a.size(); ++i)
      if (!std::isfinite(values[i])) throw DataError(where, a.name, "finite values", "NaN or infinity");
  }
}

void ShapeReader::number(const char* key, Index& out, Index least, Index most) const {
  const Value* n = value.find(key);
  if (!n || !n->is_integer() || n->as_integer() < least || n->as_integer() > most)
    throw DataError(where, key, fmt::format("a whole number from {} to {}", least, most), n ? to_json(*n) : "none");
  out = n->as_integer();
}

void ShapeReader::list(const char* key, std::vector<Index>& out, std::size_t longest, Index least, Index most) const {
  const Value* all = value.find(key);
  const auto refuse = [&] {
    throw DataError(where, key, fmt::format("up to {} whole numbers from {} to {}", longest, least, most),
                    all ? to_json(*all) : "none");
  };
  if (!all || !all->is_array() || all->size() > longest) refuse();
  out.clear();
  for (const Value& n : all->as_array()) {
    if (!n.is_integer() || n.as_integer() < least || n.as_integer() > most) refuse();
    out.push_back(n.as_integer());
  }
}

}  // namespace percept::diffusion
