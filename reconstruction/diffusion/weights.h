/// The arrays of a network: names, shapes, and how training starts them. What the program checks a model against and
/// what LibTorch computes with come from one list.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/stream.h"

namespace percept::diffusion {

constexpr Index kGroups = 8;  ///< of a normalisation: it divides every number of channels

struct WeightArray {
  std::string name;
  std::vector<Index> shape;  ///< of a convolution: outputs, inputs, height, width
  double start = 0;          ///< every value, where bound is 0
  double bound = 0;          ///< else uniform in +-bound
  Index size() const;
};

/// The layers that networks here are made of, added one after the other.
class WeightList {
 public:
  void add(WeightArray array) { arrays_.push_back(std::move(array)); }
  void linear(const std::string& name, Index out, Index in, double bias = 0);
  /// zero: weights start at zero, so that what the layer adds to something does nothing at first.
  void convolution(const std::string& name, Index out, Index in, Index side, bool zero = false);
  void normalisation(const std::string& name, Index channels);
  void attention(const std::string& name, Index channels);
  const std::vector<WeightArray>& arrays() const { return arrays_; }
  Index size() const;  ///< of all arrays together

 private:
  std::vector<WeightArray> arrays_;
};

/// Throws DataError naming `where` unless every array is there, in float, of its shape and finite.
void require_weights(const Model& model, const WeightList& list, const std::string& where);

/// Layers of an item: a network's shape as a model's meta has it.
struct ShapeReader {
  const Value& value;
  std::string where;  ///< for messages
  /// Throw DataError naming key, what was expected and what was found.
  void number(const char* key, Index& out, Index least, Index most) const;
  void list(const char* key, std::vector<Index>& out, std::size_t longest, Index least, Index most) const;
};

}  // namespace percept::diffusion
