#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "core/error.h"
#include "evaluation/bootstrap.h"
#include "evaluation/metrics.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::evaluation {
namespace {

using ::testing::HasSubstr;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The lines of metrics.csv by their first cell.
std::map<std::string, std::vector<double>> reference_table(const std::filesystem::path& file) {
  std::map<std::string, std::vector<double>> table;
  std::ifstream in(file);
  std::string line, cell;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::stringstream cells(line);
    std::string name;
    std::getline(cells, name, ',');
    while (std::getline(cells, cell, ',')) table[name].push_back(std::stod(cell));
  }
  return table;
}

TEST(Metrics, EqualTheReferenceOnARealRecording) {
  std::filesystem::path z_file, table_file;
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(table_file, "bci/reference/metrics.csv");
  const auto table = reference_table(table_file);
  const Eigen::MatrixXd truth = testing::read_reference(z_file).middleRows(5000, 1000).transpose();
  const std::map<std::string, std::string> files{{"Kalman", "kalman"},
                                                 {"ols rdkf fallback=0", "ols_rdkf"},
                                                 {"gp_constQ dkf fallback=0", "gp_constQ_dkf"},
                                                 {"UKF", "ukf"}};
  for (auto& [name, file] : files) {
    std::filesystem::path path;
    PERCEPT_NEED_DATA(path, "bci/reference/" + file + ".csv");
    const Eigen::MatrixXd decoded = testing::read_reference(path, 1).leftCols(2).transpose();
    const auto& expected = table.at(name);
    EXPECT_NEAR(score("rmse", truth, decoded).values[0], expected[0], 1e-9) << name;
    EXPECT_NEAR(score("nrmse", truth, decoded).values[0], expected[1], 1e-9) << name;
    EXPECT_NEAR(score("maae", truth, decoded).values[0], expected[2], 1e-9) << name;
    const Score r2 = score("r2", truth, decoded), r = score("r", truth, decoded);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_NEAR(r2.values[i], expected[3 + i], 1e-9) << name;
      EXPECT_NEAR(r.values[i], expected[5 + i], 1e-9) << name;
    }
    EXPECT_NEAR(score("mean_r", truth, decoded).values[0], (expected[5] + expected[6]) / 2, 1e-9) << name;
  }
  const Score zero = score("r", truth, Eigen::MatrixXd::Zero(2, 1000));
  EXPECT_TRUE(std::isnan(zero.values[0]));
  EXPECT_EQ(zero.reasons[0], "what was decoded is constant");
  EXPECT_NEAR(score("rmse", truth, Eigen::MatrixXd::Zero(2, 1000)).values[0], table.at("zero")[0], 1e-9);
  EXPECT_NEAR(score("nrmse", truth, Eigen::MatrixXd::Zero(2, 1000)).values[0], 1.0, 1e-12);
  EXPECT_NEAR(score("r2", truth, Eigen::MatrixXd::Zero(2, 1000)).values[1], table.at("zero")[4], 1e-9);
}

TEST(Metrics, LeaveOutAndCountMissingFrames) {
  Eigen::MatrixXd truth(1, 5), decoded(1, 5);
  truth << 1, 2, kNaN, 4, 100;
  decoded << 2, 2, 50, 2, kNaN;
  const Score s = score("rmse", truth, decoded);
  EXPECT_EQ(s.frames, 3);
  EXPECT_EQ(s.missing, 2);
  EXPECT_DOUBLE_EQ(s.values[0], std::sqrt(5.0 / 3.0));
}

TEST(Metrics, MedianErrorLeavesMissingFramesOutAndKnowsItsUnit) {
  Eigen::MatrixXd truth = Eigen::MatrixXd::Zero(2, 4), decoded(2, 4);
  decoded << 3, 0, kNaN, 6,  //
      4, 1, 0, 8;
  const Score s = score("median_error", truth, decoded);
  EXPECT_EQ(s.values, std::vector<double>{5});
  EXPECT_EQ(s.missing, 1);
  EXPECT_EQ(score("median_error_px", truth.leftCols(2), decoded.leftCols(2)).values, std::vector<double>{3});
  const MetricInfo& in_pixels = metric_info("median_error_px");
  EXPECT_EQ(in_pixels.unit, "px");
  require_unit(in_pixels, "px");
  require_unit(metric_info("median_error"), "m");
  EXPECT_EQ(testing::message_of([&] { require_unit(in_pixels, "m", "a.toml: score.metrics"); }),
            "a.toml: score.metrics = median_error_px: expected a target in px, found one in m");
  EXPECT_THROW(metric_info("median_error_parsec"), ConfigError);
  EXPECT_THROW(metric_info("rmse_px"), ConfigError);
}

TEST(Metrics, AngleIsWrapped) {
  Eigen::MatrixXd truth(2, 2), decoded(2, 2);
  truth << -1, 1, 0.1, 0;
  decoded << -1, 0, -0.1, 1;
  EXPECT_NEAR(score("maae", truth, decoded).values[0], (2 * std::atan(0.1) + std::acos(0.0)) / 2, 1e-12);
}

TEST(Metrics, UndefinedValuesSayWhy) {
  Eigen::MatrixXd truth(2, 4), decoded(2, 4);
  truth << 0.1, 0.1, 0.1, 0.1, 1, 2, 3, 4;
  decoded << 1, 2, 3, 4, 1, 2, 3, 5;
  for (const char* name : {"r2", "r"}) {
    const Score s = score(name, truth, decoded);
    EXPECT_TRUE(std::isnan(s.values[0]));
    EXPECT_EQ(s.reasons[0], "the truth is constant");
    EXPECT_TRUE(std::isfinite(s.values[1]));
    EXPECT_EQ(s.reasons[1], "");
    const Value v = to_value(s, nullptr, {"x", "y"});
    EXPECT_TRUE(v.at("value").is_null());
    EXPECT_EQ(v.at("reason").as_string(), "the truth is constant");
    EXPECT_EQ(v.at("outputs").as_array()[1].at("name").as_string(), "y");
    EXPECT_TRUE(v.at("outputs").as_array()[1].at("value").is_number());
  }
  EXPECT_EQ(score("mean_r", truth, decoded).reasons[0], "the truth is constant");
  EXPECT_EQ(score("nrmse", Eigen::MatrixXd::Zero(2, 4), decoded).reasons[0], "the truth is zero everywhere");
  const Score none = score("rmse", Eigen::MatrixXd::Constant(2, 4, kNaN), decoded);
  EXPECT_EQ(none.reasons[0], "no frame has both a truth and a decoded value");
  EXPECT_EQ(none.frames, 0);
  // a large offset is not a constant
  Eigen::MatrixXd far = decoded.array() + 1e9;
  EXPECT_NEAR(score("r", far, far).values[0], 1.0, 1e-9);
}

TEST(Metrics, RefuseWhatCannotBeScored) {
  const Eigen::MatrixXd two = Eigen::MatrixXd::Random(2, 5), three = Eigen::MatrixXd::Random(3, 5);
  try {
    score("nmse", two, two);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(
        e.what(),
        "metrics = nmse: expected one of rmse, nrmse, maae, r2, r, mean_r, median_error, pcc, mse, psnr, "
        "ssim_gaussian, ssim_uniform7, ssim_uniform11, identification, accuracy, top1_10way (did you mean 'rmse'?)");
  }
  try {
    score("maae", three, three);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "metrics = maae: expected a target of 2 outputs (x, y), found 3");
  }
  try {
    score("rmse", two, three);
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "decoded: shape: expected 2 outputs x 5 frames as in the truth, found 3 x 5");
  }
  Eigen::MatrixXd infinite = two;
  infinite(1, 3) = -std::numeric_limits<double>::infinity();
  try {
    score("rmse", two, infinite);
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(),
                 "decoded: output 1 of frame 3: expected a finite number, or NaN for missing, found infinity");
  }
}

TEST(Metrics, GatherPutsRangesSideBySide) {
  Eigen::MatrixXd m(1, 6);
  m << 0, 1, 2, 3, 4, 5;
  const Eigen::MatrixXd g = gather(m, {{1, 2}, {4, 5}});
  EXPECT_EQ(g, (Eigen::MatrixXd(1, 4) << 1, 2, 4, 5).finished());
  EXPECT_THAT(segment_starts({{1, 2}, {4, 5}}), ::testing::ElementsAre(0, 2));
  EXPECT_THROW(gather(m, {{4, 6}}), DataError);
}

}  // namespace
}  // namespace percept::evaluation
