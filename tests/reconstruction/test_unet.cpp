#include "reconstruction/diffusion/unet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "core/error.h"

namespace percept::diffusion {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::function<void(UnetShape&)>& change) {
  UnetShape shape;
  shape.image = {28, 28};
  change(shape);
  try {
    shape.check("file.toml:3: prior");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(UnetShape, SaysWhatItCannotBe) {
  EXPECT_EQ(refusal([](UnetShape&) {}), "");
  EXPECT_EQ(refusal([](UnetShape& s) { s.image = {784}; }),
            "file.toml:3: prior.image = {784}: expected {height, width} or {channels, height, width}, each at least 1");
  EXPECT_THAT(refusal([](UnetShape& s) { s.image = {0, 28}; }), HasSubstr("prior.image = {0, 28}"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.patch = 0; }), HasSubstr("prior.patch = 0: expected 1 to 16"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.channels = 20; }),
              HasSubstr("prior.channels = 20: expected a multiple of 8 up to 1024"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.multipliers = {}; }), HasSubstr("prior.multipliers = []"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.multipliers = {1, 17}; }), HasSubstr("prior.multipliers = [1, 17]"));
  EXPECT_THAT(refusal([](UnetShape& s) {
                s.multipliers = {1, 1, 1, 1, 1};
              }),
              HasSubstr("prior.multipliers = 5 levels: expected fewer levels: 28 x 28 pixels in patches of 2"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.blocks = 0; }), HasSubstr("prior.blocks = 0"));
  EXPECT_THAT(refusal([](UnetShape& s) { s.attention = {2}; }),
              HasSubstr("prior.attention = [2]: expected levels from 0 to 1"));
}

TEST(UnetShape, IsReadBackFromAModel) {
  UnetShape shape;
  shape.image = {3, 10, 10};
  shape.patch = 1;
  shape.multipliers = {1, 2, 2};
  shape.attention = {1, 2};
  shape.classes = 10;
  shape.embedding = 5;
  EXPECT_EQ(unet_shape(parse_json(to_json(to_value(shape))), "model"), shape);
  const auto message = [&](const char* key, Value value) -> std::string {
    Value v = to_value(shape);
    if (value.is_null()) v.erase(key);
    else v[key] = std::move(value);
    try {
      unet_shape(v, "model of x.network");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message("patch", {}), "model of x.network: patch: expected a whole number from 1 to 16, found none");
  EXPECT_THAT(message("patch", 0.5), HasSubstr("patch: expected a whole number from 1 to 16, found 0.5"));
  EXPECT_THAT(message("channels", 1e9), HasSubstr("channels: expected"));
  EXPECT_THAT(message("image", "big"), HasSubstr("image: expected up to 3 whole numbers from 1 to 32768"));
  EXPECT_THAT(message("image", Value(std::vector<std::int64_t>{1, 2, 3, 4})), HasSubstr("found [1,2,3,4]"));
  EXPECT_THAT(message("image", Value(std::vector<std::int64_t>{5})), HasSubstr("image"));
  EXPECT_THAT(message("attention", Value(std::vector<std::int64_t>{5})),
              HasSubstr("model of x.network.attention: expected levels from 0 to 2, found [5]"));
}

Index weights_of(Index channels, std::vector<Index> attention) {
  UnetShape shape;
  shape.image = {28, 28};
  shape.channels = channels;
  shape.attention = std::move(attention);
  const UnetPlan plan(shape);
  std::set<std::string> names;
  for (const WeightArray& a : plan.weights.arrays()) EXPECT_TRUE(names.insert(a.name).second) << a.name;
  return plan.weights.size();
}

// counted by hand for 8 channels: see the plan's parts
TEST(UnetPlan, HasTheArraysOfItsParts) {
  const auto conv = [](Index out, Index in, Index side) { return out * (in * side * side + 1); };
  const auto block = [&](Index in, Index out) {
    return 2 * in + conv(out, in, 3) + conv(out, out, 3) + (in != out ? conv(out, in, 1) : 0);
  };
  const Index down = block(8, 8) + block(8, 8) + conv(8, 8, 3) + block(8, 16) + block(16, 16);
  const Index middle = block(16, 16) + block(16, 16);
  const Index up = block(32, 16) + block(32, 16) + block(24, 8) + block(16, 8);
  const Index modulated = 8 + 8 + 16 + 16 + 16 + 16 + 16 + 16 + 8 + 8;
  const Index told = 32 * (32 + 1) + 32 * (32 + 1) + 2 * modulated * (32 + 1);
  EXPECT_EQ(weights_of(8, {}), conv(8, 4, 3) + down + middle + up + 2 * 8 + conv(4, 8, 3) + told);
  // one after each block of the level but the second in the middle
  EXPECT_EQ(weights_of(8, {1}) - weights_of(8, {}), 5 * (2 * 16 + conv(48, 16, 1) + conv(16, 16, 1)));
}

TEST(UnetPlan, AModelOfAnotherArchitectureIsRefused) {
  UnetShape shape;
  shape.image = {8, 8};
  shape.channels = 8;
  const UnetPlan plan(shape);
  Model model;
  for (const WeightArray& a : plan.weights.arrays()) {
    Tensor& t = model.tensors()[a.name];
    t.type = Tensor::Type::f32;
    t.shape.assign(a.shape.begin(), a.shape.end());
    t.data.resize(static_cast<std::size_t>(a.size()) * sizeof(float));
  }
  const auto message = [](const Model& m, const UnetPlan& p) -> std::string {
    try {
      require_weights(m, p.weights, "model of x");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(model, plan), "");
  UnetShape wider = shape;
  wider.channels = 16;
  EXPECT_EQ(
      message(model, UnetPlan(wider)),
      "model of x: input.weights: expected {16, 4, 3, 3} in float (is it a model of another architecture?), found "
      "{8, 4, 3, 3}");
  UnetShape deeper = shape;
  deeper.blocks = 3;
  EXPECT_THAT(message(model, UnetPlan(deeper)), HasSubstr("down.0.2.norm.gain: expected an array {8}, found none"));
  Model broken = model;
  reinterpret_cast<float*>(broken.tensors().at("output.bias").data.data())[1] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(message(broken, plan), "model of x: output.bias: expected finite values, found NaN or infinity");
  broken = model;
  broken.tensors().at("output.bias").type = Tensor::Type::i64;
  EXPECT_THAT(message(broken, plan), HasSubstr("output.bias: expected {4} in float"));
}

}  // namespace
}  // namespace percept::diffusion
