#include "numerics/training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/model.h"
#include "tests/support/data.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// three steps on one weight, in double, as the paper's algorithm 2 has it
TEST(AdamW, IsThePapersAlgorithm) {
  const std::vector<float> gradients{0.5F, -0.25F, 2};
  const double rate = 0.1, decay = 0.03, mean = 0.5;
  std::vector<float> weights{1.5F};
  AdamW optimiser(weights);
  double w = 1.5, m = 0, v = 0, average = 1.5;
  for (std::size_t t = 1; t <= gradients.size(); ++t) {
    const double g = 2 * gradients[t - 1];
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const auto step = static_cast<double>(t);
    w -= rate * (m / (1 - std::pow(0.9, step)) / (std::sqrt(v / (1 - std::pow(0.999, step))) + 1e-8) + decay * w);
    const double keep = std::min(mean, (1 + step) / (10 + step));
    average = keep * average + (1 - keep) * w;
    optimiser.update(std::span(&gradients[t - 1], 1), 2, rate, decay, mean);
    EXPECT_NEAR(weights[0], w, 1e-6) << t;
    EXPECT_NEAR(optimiser.average[0], average, 1e-6) << t;
  }
  EXPECT_EQ(optimiser.step, 3);
}

TEST(AdamW, TheLengthOfAGradient) {
  std::vector<float> gradient(5000);
  double sum = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    gradient[i] = std::sin(static_cast<float>(i));
    sum += static_cast<double>(gradient[i]) * gradient[i];
  }
  EXPECT_NEAR(norm_of(gradient), std::sqrt(sum), 1e-6 * std::sqrt(sum));
  EXPECT_EQ(norm_of({}), 0);
}

struct Kept {
  std::vector<float> weights{1, 2, 3};
  double best = 0.25;
  std::int64_t step = 7;
  std::vector<double> losses{4, 5};
  TrainingCheckpoint::Contents contents() {
    return {{{"weights", weights}}, {{"best", {&best, 1}}}, {{"step", {&step, 1}}}, {{"losses", &losses}}};
  }
};

TEST(TrainingCheckpoint, GivesBackWhatItsTaskKept) {
  const auto file = testing::temporary_folder() / "training" / "kept.safetensors";
  const std::string task = sha256(std::string_view("this task"));
  Kept first, second{{0, 0, 0}, 0, 0, {}};
  EXPECT_FALSE(TrainingCheckpoint(file, task).load(second.contents()));
  TrainingCheckpoint(file, task).save(first.contents());
  EXPECT_FALSE(TrainingCheckpoint(file, sha256(std::string_view("another"))).load(second.contents()));
  EXPECT_EQ(second.step, 0);
  EXPECT_TRUE(TrainingCheckpoint(file, task).load(second.contents()));
  EXPECT_EQ(second.weights, first.weights);
  EXPECT_EQ(second.best, first.best);
  EXPECT_EQ(second.step, first.step);
  EXPECT_EQ(second.losses, first.losses);
  TrainingCheckpoint nowhere("", task);
  nowhere.save(first.contents());
  EXPECT_FALSE(nowhere.load(second.contents()));
}

TEST(TrainingCheckpoint, SaysWhatIsWrongWithTheFile) {
  const auto file = testing::temporary_folder() / "training" / "wrong.safetensors";
  const std::string task = sha256(std::string_view("this task"));
  Kept kept;
  TrainingCheckpoint(file, task).save(kept.contents());
  const auto message = [&](auto change) -> std::string {
    auto arrays = read_safetensors(file);
    change(arrays);
    const auto other = testing::temporary_folder() / "training" / "changed.safetensors";
    write_atomic(other, format_safetensors(arrays));
    try {
      TrainingCheckpoint(other, task).load(kept.contents());
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  using Arrays = std::map<std::string, Tensor>;
  EXPECT_EQ(message([](Arrays&) {}), "");
  EXPECT_THAT(
      message([](Arrays& a) { a.erase("weights"); }),
      AllOf(HasSubstr("changed.safetensors"), HasSubstr("weights: expected an array of a training, found none")));
  EXPECT_THAT(message([](Arrays& a) { a["weights"] = a["losses"]; }), HasSubstr("weights: expected an array of a "
                                                                                "training, found another type"));
  EXPECT_THAT(message([](Arrays& a) { a["best"] = a["losses"]; }), HasSubstr("best: expected 1 values, found 2"));
  EXPECT_THAT(message([](Arrays& a) { a["task"] = a["step"]; }), HasSubstr("task: expected 4 values, found 1"));
}

}  // namespace
}  // namespace percept
