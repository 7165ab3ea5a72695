/// docs/adding-a-stage.md: its example is compiled, does what the page says, and stands on the page word for word.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/files.h"
#include "core/registry.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"

namespace percept {
StageInfo info_drift();
}

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Stage> make_drift(double time_constant_s) {
  return info_drift().make(Value::object({{"time_constant_s", time_constant_s}}), nullptr, "test: drift");
}

// x = 1 from the first frame on leaves (1 - 1 / n)^(k + 1) at frame k, where n is the time constant in frames.
TEST(Drift, StepDecaysWithTheTimeConstant) {
  auto drift = make_drift(0.5);
  const Collected y = run_stage(*drift, {.format = time_format(2, 100.0), .frames = Eigen::MatrixXd::Ones(2, 200)});
  ASSERT_EQ(y.frames(), 200);
  for (Index k = 0; k < 200; ++k) EXPECT_NEAR(y.frame(k)[1], std::pow(1 - 1 / 50.0, k + 1), 1e-12) << k;
}

TEST(Drift, MissingValueStaysMissingAndLeavesTheMeanAlone) {
  Eigen::MatrixXd x = Eigen::MatrixXd::Ones(1, 3);
  x(0, 1) = std::numeric_limits<double>::quiet_NaN();
  auto drift = make_drift(0.5);
  const Collected y = run_stage(*drift, {.format = time_format(1, 100.0), .frames = x});
  EXPECT_TRUE(std::isnan(y.frame(1)[0]));
  EXPECT_NEAR(y.frame(2)[0], std::pow(1 - 1 / 50.0, 2), 1e-12);
}

TEST(Drift, RefusesATimeConstantShorterThanAFrame) {
  auto drift = make_drift(0.005);
  Context context;
  context.node = "slow";
  try {
    drift->prepare(time_format(1, 100.0), context);
    FAIL() << "took a time constant of half a frame";
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("slow"));
    EXPECT_THAT(e.what(), HasSubstr("time_constant_s"));
  }
}

TEST(Drift, KeepsTheContract) {
  const StageInfo info = info_drift();
  for (const Sample& sample : info.samples())
    for (const Law& law : contract_laws()) {
      const ContractResult result = law.check(info, sample);
      EXPECT_TRUE(result.ok()) << law.name << ": " << result.text();
    }
}

TEST(Page, ShowsTheExampleAsItIsCompiled) {
  const std::string page = read_file(source_folder() / "docs/adding-a-stage.md");
  EXPECT_THAT(page, HasSubstr("```cpp\n" + read_file(source_folder() / "docs/examples/drift.cpp") + "```"));
}

}  // namespace
}  // namespace percept::testing
