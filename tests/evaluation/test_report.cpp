#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <regex>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/calibration.h"
#include "evaluation/report/report.h"
#include "evaluation/split.h"
#include "tests/evaluation/confound_scores.h"
#include "tests/support/data.h"

namespace percept::evaluation {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

std::size_t count(const std::string& text, const std::string& word) {
  std::size_t n = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

/// What a reader's browser would load or run: nothing from outside, and only the four scripts of the page.
void expect_self_contained(const std::string& html) {
  EXPECT_FALSE(
      std::regex_search(html, std::regex(R"(<(link|img|iframe|object|embed|base|form)\b)", std::regex::icase)));
  EXPECT_FALSE(std::regex_search(html, std::regex(R"((src|href)\s*=\s*["']?(https?:)?//)", std::regex::icase)));
  EXPECT_FALSE(std::regex_search(html, std::regex(R"(@import|url\()", std::regex::icase)));
  EXPECT_EQ(count(html, "<script"), 4u);
  EXPECT_EQ(count(html, "</script"), 4u);
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  // every tag that is opened is closed
  for (const char* tag : {"section", "table", "thead", "tbody", "tr", "td", "div", "span", "ul", "li", "details", "svg",
                          "p", "h2", "h3", "main"}) {
    const std::regex open(std::string("<") + tag + R"([\s>])"), close(std::string("</") + tag + ">");
    EXPECT_EQ(std::distance(std::sregex_iterator(html.begin(), html.end(), open), std::sregex_iterator()),
              std::distance(std::sregex_iterator(html.begin(), html.end(), close), std::sregex_iterator()))
        << tag;
  }
}

Eigen::MatrixXd wave(Index rows, Index frames, double phase) {
  Eigen::MatrixXd m(rows, frames);
  for (Index i = 0; i < rows; ++i)
    for (Index k = 0; k < frames; ++k)
      m(i, k) = std::sin(0.05 * static_cast<double>(k) * static_cast<double>(i + 1) + phase);
  return m;
}

TEST(Report, MinimalDocument) {
  const std::string html = render_report(Value::object({{"title", "Nothing yet"}}));
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("<title>Nothing yet</title>"));
  EXPECT_THAT(html, HasSubstr("<h1>Nothing yet</h1>"));
  EXPECT_THAT(html, Not(HasSubstr("<h2")));
  EXPECT_THAT(html, Not(HasSubstr("{{")));
}

Value some_search() {
  auto row = [](int lags, Value value, int folds) {
    return Value::object({{"params", Value::object({{"lags.count", lags}, {"ridge.strength", 0.1}})},
                          {"value", std::move(value)},
                          {"folds", folds},
                          {"frames", 1000},
                          {"chosen", lags == 3}});
  };
  Value failed = row(99, nullptr, 0), two = row(1, 0.9, 2), three = row(2, 0.95, 3);
  failed["failed"] = "fewer training rows than features";
  two["given_up"] = "worse than the best on each of 2 folds (p = 0.004)";
  three["given_up"] = "worse than the best on each of 3 folds (p = 0.003)";
  return Value::object(
      {{"metric", "nrmse"},
       {"method", "random"},
       {"lower_is_better", true},
       {"folds", 5},
       {"rows", Value::array({failed, two, row(9, 0.7812, 5), three, row(3, 0.7411, 5), row(4, 0.7412, 5)})}});
}

/// Every section, on a real Kalman filter's output.
Value full_document(const Eigen::MatrixXd& all, const Eigen::MatrixXd& posterior) {
  const std::vector<RowRange> train{{0, 4999}}, test{{5000, 5999}};
  const Eigen::MatrixXd truth = gather(all, test), decoded = posterior.topRows(2);
  Eigen::MatrixXd covariance(4, truth.cols());
  covariance << posterior.row(2), posterior.row(3), posterior.row(3), posterior.row(4);
  const Confounds time = time_confounds(6000);
  const ShiftNull null = shift_null("nrmse", truth, decoded, 200, 0);
  Eigen::MatrixXd everywhere = Eigen::MatrixXd::Constant(2, 6000, kNoNumber);
  everywhere.rightCols(1000) = decoded;

  Value r =
      Value::object({{"title", "Kalman filter on flint_run1"},
                     {"description", "Hand velocity of a monkey from ten principal components of 100 ms spike counts."},
                     {"created", "2024-05-06 07:08 UTC"}});
  r["warnings"] =
      Value::array({"Processed upstream with a leak: the principal components and the z-score were fitted on the whole "
                    "session, test rows included."});
  r["data"] = Value::object({{"name", "flint_run1"},
                             {"title", "Flint 2012, monkey M1, session 1"},
                             {"licence", "MIT (processed), CRCNS terms (raw)"},
                             {"citation", "Flint, Lindberg, Jordan, Miller, Slutzky, J. Neural Eng. 9 (2012) 046006"}});
  SplitSpec spec;
  spec.params = parse_toml("train_rows = [0, 4999]\ntest_rows = [5000, 5999]");
  SplitContext context;
  context.frames = 7792;
  context.rate_hz = 10;
  r["split"] = Value::array({to_value(spec, make_folds(spec, context), context)});
  Value metrics_value = Value::array(), time_value = Value::array(), removed = Value::array();
  for (const char* name : {"nrmse", "maae", "r2", "r"}) {
    const Score s = score(name, truth, decoded);
    const Bootstrap b = bootstrap(s, truth, decoded);
    metrics_value.push_back(to_value(s, &b, {"vx", "vy"}));
    time_value.push_back(to_value(score_confounds(name, time, all.leftCols(6000), train, test), nullptr, {"vx", "vy"}));
    removed.push_back(
        to_value(score_after_removal(name, time, all.leftCols(6000), everywhere, train, test), nullptr, {"vx", "vy"}));
  }
  double best = 1e9;
  for (double v : null.values) best = std::min(best, v);
  Value shuffled = Value::array({Value::object({{"name", "nrmse"}, {"value", best}})});
  r["scores"] = Value::array({Value::object(
      {{"name", ""},
       {"split", "official"},
       {"model", "kalman"},
       {"metrics", metrics_value},
       {"controls",
        Value::array(
            {Value::object({{"name", "time alone"}, {"kind", "control"}, {"doc", time.doc}, {"metrics", time_value}}),
             Value::object(
                 {{"name", "trial structure"}, {"kind", "control"}, {"absent", trial_confounds({}, 6000, 10, 0).doc}}),
             Value::object({{"name", "best of the shifts"}, {"kind", "null"}, {"metrics", shuffled}}),
             Value::object({{"name", "after time"}, {"kind", "removed"}, {"metrics", removed}})})},
       {"p",
        Value::object({{"value", null.p}, {"metric", "nrmse"}, {"permutations", 200}, {"method", null.method}})}})});
  TrajectoryOptions options;
  options.name = "kalman, test rows 5000..5999";
  options.rate_hz = 10;
  options.start_s = 500;
  options.outputs = {"vx", "vy"};
  r["trajectories"] = Value::array({trajectory(truth, decoded, covariance, options)});
  Value calibration = to_value(calibrate(truth, decoded, covariance));
  calibration["name"] = "kalman";
  r["calibration"] = Value::array({calibration});
  r["search"] = Value::array({Value::object({{"split", "official"}, {"fold", "official"}, {"search", some_search()}})});
  r["models"] = Value::array({Value::object({{"node", "kalman"},
                                             {"use", "kalman"},
                                             {"frames", 5000},
                                             {"digest", std::string(64, 'a')},
                                             {"params", Value::object({{"steady_state", false}})},
                                             {"counters", Value::object({{"covariance_repaired", 0}})},
                                             {"seconds", 0.0123}})});
  r["counters"] = Value::object({{"kalman.missing_frames", 0}});
  r["losses"] = Value::array({Value::object(
      {{"name", "network"},
       {"x", std::vector<double>{1, 2, 3, 4}},
       {"x_label", "epoch"},
       {"series",
        Value::array({Value::object({{"name", "training"}, {"values", std::vector<double>{1, .6, .5, .45}}}),
                      Value::object({{"name", "inner fold"}, {"values", std::vector<double>{1.1, .8, .7, .72}}})})}})});
  r["graph"] = Value::array({Value::object({{"name", "kalman"},
                                            {"use", "kalman"},
                                            {"from", Value::array({"activity"})},
                                            {"shape", "mean {2}, covariance {2, 2}"},
                                            {"scalar", "f64"},
                                            {"rate_hz", 10.0},
                                            {"latency_s", 0.0},
                                            {"memory_frames", -2},
                                            {"fit", "train"}})});
  r["provenance"] =
      Value::object({{"percept", "0.1.0"},
                     {"seed", 0},
                     {"block", 4096},
                     {"threads", 2},
                     {"seconds", 0.42},
                     {"peak_rss_bytes", 73400320},
                     {"libraries", Value::object({{"Eigen", "3.4.0"}, {"OpenBLAS", "0.3.21"}})},
                     {"inputs", Value::array({Value::object({{"file", "x.csv"}, {"sha256", std::string(64, 'b')}})})}});
  r["rerun"] = "percept rerun runs/flint_kalman";
  return r;
}

TEST(Report, FullDocumentOnARealRecording) {
  std::filesystem::path z_file, kalman;
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(kalman, "bci/reference/kalman.csv");
  const Value document =
      full_document(testing::read_reference(z_file).transpose(), testing::read_reference(kalman, 1).transpose());
  const std::string html = render_report(document);
  expect_self_contained(html);
  for (const char* heading : {"Read this first", "Scores, beside their controls", "Decoded against true", "Calibration",
                              "Split", "Data set", "Search", "Fitted models", "Training", "Graph", "Provenance"})
    EXPECT_THAT(html, HasSubstr(heading));
  EXPECT_THAT(html, HasSubstr("0.7647"));
  EXPECT_THAT(html, HasSubstr("time alone"));
  EXPECT_THAT(html, HasSubstr("the recording has fewer than two trials"));
  EXPECT_THAT(html, HasSubstr("p = 0.005"));  // 1 / 201
  EXPECT_THAT(html, HasSubstr("70 MiB"));
  EXPECT_THAT(html, HasSubstr("percept rerun runs/flint_kalman"));
  EXPECT_LT(html.size(), 400'000u);
  EXPECT_EQ(html, render_report(document));
  if (const char* file = std::getenv("PERCEPT_REPORT_SAMPLE")) write_atomic(file, html);  // to look at
}

/// Position of each text; they have to be there, one after the other.
void expect_order(const std::string& html, const std::vector<std::string>& texts) {
  std::size_t at = 0;
  for (auto& t : texts) {
    const auto next = html.find(t, at);
    EXPECT_NE(next, std::string::npos) << t << " is not there after what has to come before it";
    if (next != std::string::npos) at = next + t.size();
  }
}

TEST(Report, SearchIsSortedAndSaysWhatBecameOfEach) {
  Value document = Value::object({{"title", "t"}});
  document["search"] =
      Value::array({Value::object({{"split", "official"}, {"fold", "official"}, {"search", some_search()}})});
  const std::string html = render_report(document);
  expect_self_contained(html);
  EXPECT_THAT(html,
              HasSubstr("6 candidates, 2 given up before the last fold, 1 failed, drawn at random. Chosen by nrmse "
                        "(lower is better) over the frames of 5 inner folds"));
  expect_order(html, {"0.7411", "5 of 5", "chosen</span>", "0.7412", "0.7812", "0.9500", "3 of 5", "given up</span>",
                      "on each of 3 folds", "0.9000", "on each of 2 folds", "failed</span>", "fewer training rows"});
  EXPECT_EQ(count(html, "class=\"chosen\""), 1u);
  EXPECT_THAT(html, Not(HasSubstr("frames scored"))) << "all were scored on the same";

  // higher is better: the other way round
  document["search"].as_array()[0]["search"]["lower_is_better"] = false;
  expect_order(render_report(document), {"0.7812", "0.7412", "0.7411", "0.9500"});

  // a second fold has a heading, many rows are folded away, and other numbers of frames are told
  Value many = some_search();
  for (int k = 0; k < 40; ++k)
    many["rows"].push_back(Value::object({{"params", Value::object({{"lags.count", 100 + k}})},
                                          {"value", 0.8 + 0.001 * k},
                                          {"folds", 5},
                                          {"frames", 900}}));
  document["search"].push_back(Value::object({{"split", "official"}, {"fold", "fold 2"}, {"search", many}}));
  const std::string two = render_report(document);
  expect_self_contained(two);
  expect_order(two, {"<h3>official</h3>", "<h3>official, fold 2</h3>", "frames scored", "<td class=\"n\">1000</td>",
                     "<td class=\"n\">900</td>", "21 more"});
}

TEST(Report, SaysWhoseCovarianceIsNotCalibrated) {
  const auto entry = [](const char* name, const char* verdict, bool drawn) {
    Value v =
        Value::object({{"name", name}, {"calibrated", std::string(verdict) == "calibrated"}, {"verdict", verdict}});
    if (drawn)
      v["levels"] = Value::array({Value::object({{"nominal", 0.9}, {"observed", 0.8}, {"low", 0.7}, {"high", 0.9}})});
    return v;
  };
  const std::string html = render_report(Value::object(
      {{"title", "Ellipses"},
       {"calibration", Value::array({entry("good", "calibrated", true), entry("sure", "overconfident", true),
                                     entry("plain", "gives no covariance", false)})}}));
  EXPECT_THAT(html, HasSubstr("<h3>good <span class=\"pill good\">calibrated</span></h3>"));
  EXPECT_THAT(html, HasSubstr("<h3>sure <span class=\"pill bad\">not calibrated: overconfident</span></h3>"));
  EXPECT_THAT(html, HasSubstr("<h3>plain <span class=\"pill bad\">not calibrated: gives no covariance</span></h3>"));
  EXPECT_THAT(html, HasSubstr("id=\"calibration-1\""));
  EXPECT_THAT(html, Not(HasSubstr("id=\"calibration-2\"")));
}

TEST(Report, HostileTextStaysText) {
  const std::string evil =
      "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"' onload='x {{data}} {{nonce}} <!--";
  Value document = Value::object({{"title", evil}, {"description", evil}, {"created", evil}, {"rerun", evil}});
  document["warnings"] = Value::array({evil});
  document["data"] = Value::object({{"name", evil},
                                    {"licence", evil},
                                    {"recordings", Value::array({Value::object({{"name", evil}, {evil, evil}})})}});
  Value metric = Value::object({{"name", evil},
                                {"doc", evil},
                                {"unit", evil},
                                {"value", nullptr},
                                {"reason", evil},
                                {"interval", evil},
                                {"outputs", Value::array({Value::object({{"name", evil}, {"value", 1.0}}),
                                                          Value::object({{"name", evil}, {"reason", evil}})})}});
  document["scores"] = Value::array({Value::object(
      {{"name", evil},
       {"split", evil},
       {"model", evil},
       {"metrics", Value::array({metric})},
       {"controls", Value::array({Value::object({{"name", evil}, {"doc", evil}, {"metrics", Value::array({metric})}}),
                                  Value::object({{"name", evil}, {"absent", evil}})})},
       {"p", Value::object({{"value", 0.1}, {"metric", evil}, {"method", evil}})}})});
  TrajectoryOptions options;
  options.name = options.unit = evil;
  options.outputs = {evil, evil};
  document["trajectories"] = Value::array({trajectory(wave(2, 50, 0), wave(2, 50, 1), {}, options),
                                           trajectory(wave(1, 25'000, 0), wave(1, 25'000, 1), {}, options),
                                           trajectory(wave(2, 25'000, 0), wave(2, 25'000, 1), {}, options)});
  document["calibration"] = Value::array({Value::object({{"name", evil}, {"verdict", evil}, {"method", evil}})});
  document["split"] = Value::array({Value::object({{"name", evil},
                                                   {"use", evil},
                                                   {"parameters", Value::object({{evil, evil}})},
                                                   {"folds", Value::array({Value::object({{"name", evil}})})}})});
  document["search"] = Value::array({Value::object(
      {{"split", evil},
       {"fold", evil},
       {"search",
        Value::object(
            {{"metric", evil},
             {"method", evil},
             {"rows",
              Value::array({Value::object({{"params", Value::object({{evil, evil}})}, {"failed", evil}}),
                            Value::object({{"params", Value::object({{evil, evil}})}, {"given_up", evil}})})}})}})});
  document["models"] = Value::array(
      {Value::object({{"node", evil}, {"use", evil}, {"digest", evil}, {"params", Value::object({{evil, evil}})}})});
  document["counters"] = Value::object({{evil, 1}});
  document["losses"] = Value::array({Value::object(
      {{"name", evil},
       {"x_label", evil},
       {"x", std::vector<double>{1}},
       {"series", Value::array({Value::object({{"name", evil}, {"values", std::vector<double>{1}}})})}})});
  document["graph"] = Value::array(
      {Value::object({{"name", evil}, {"use", evil}, {"from", Value::array({evil})}, {"shape", evil}, {"fit", evil}})});
  document["provenance"] = Value::object({{evil, evil}, {"inner", Value::object({{evil, Value::array({evil})}})}});
  const std::string html = render_report(document);
  expect_self_contained(html);
  EXPECT_EQ(count(html, "<!--"), 0u);
  // the nonce stands where the page puts it and nowhere a document could have asked for it
  const std::string nonce = html.substr(html.find("nonce-") + 6, 32);
  EXPECT_EQ(count(html, nonce), 8u);
  if (const char* file = std::getenv("PERCEPT_REPORT_HOSTILE")) write_atomic(file, html);
}

TEST(Report, WrongTypesAreNamed) {
  auto message = [](const Value& v) {
    try {
      render_report(v);
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message(Value::table()), "report: title: expected a text, found none");
  EXPECT_EQ(message(Value::object({{"title", "x"}, {"warnings", Value::array({3})}})),
            "report: warnings: expected a section as evaluation/report/report.h describes it, found expected a string, "
            "found integer");
  EXPECT_EQ(
      message(Value::object(
          {{"title", "x"},
           {"split",
            Value::array({Value::object(
                {{"folds", Value::array({Value::object({{"train", Value::array({Value::array({1})})}})})}})})}})),
      "report: split: expected a section as evaluation/report/report.h describes it, found a range without two ends");
}

TEST(Trajectory, KeepsEveryFrameOfAShortSeries) {
  Eigen::MatrixXd truth = wave(2, 400, 0), decoded = wave(2, 400, 0.3);
  decoded(1, 7) = kNoNumber;
  Eigen::MatrixXd covariance = Eigen::MatrixXd::Constant(4, 400, 0.0);
  covariance.row(0).setConstant(0.04);
  covariance.row(3).setConstant(-1);
  TrajectoryOptions options;
  options.rate_hz = 10;
  options.start_s = 5;
  options.starts = {0, 100};
  options.segment_times = {5, 90};
  const Value v = trajectory(truth, decoded, covariance, options);
  ASSERT_EQ(v.at("x").size(), 401u);  // one empty column parts the segments
  const auto& x = v.at("x").as_array();
  EXPECT_DOUBLE_EQ(x[99].as_number(), 14.9);
  EXPECT_DOUBLE_EQ(x[101].as_number(), 90);
  const Value& out = v.at("outputs").as_array()[0];
  EXPECT_TRUE(out.at("true").as_array()[100].is_null());
  EXPECT_NEAR(out.at("decoded").as_array()[3].as_number(), decoded(0, 3), 1e-6);
  EXPECT_NEAR(out.at("high").as_array()[3].as_number() - out.at("low").as_array()[3].as_number(), 2 * 1.644854 * 0.2,
              1e-5);
  EXPECT_TRUE(v.at("outputs").as_array()[1].at("low").as_array()[3].is_null());  // a negative variance has no band
  EXPECT_TRUE(v.at("error").as_array()[7].is_null());
  EXPECT_NEAR(v.at("error").as_array()[8].as_number(), (truth.col(8) - decoded.col(8)).norm(), 1e-5);
  EXPECT_FALSE(v.contains("reduced"));
  double sum = 0;  // running mean over 8 frames: 396 .. 399 are left of the window around the last one
  for (Index k = 395; k < 400; ++k) sum += (truth.col(k) - decoded.col(k)).norm();
  EXPECT_EQ(v.at("error_window").as_integer(), 8);
  EXPECT_NEAR(v.at("error_mean").as_array().back().as_number(), sum / 5, 1e-5);
}

TEST(Trajectory, ALongSeriesKeepsItsExtremes) {
  Eigen::MatrixXd truth = wave(2, 100'003, 0);
  const Eigen::MatrixXd decoded = 0.5 * truth;
  truth(0, 54'321) = 42;
  truth(0, 77'777) = -42;
  const Value v = trajectory(truth, decoded, {}, {});
  EXPECT_LE(v.at("x").size(), 20'000u);
  EXPECT_THAT(v.at("reduced").as_string(), HasSubstr("100003 frames are drawn as the smallest and largest value of"));
  double low = 0, high = 0, last = -1;
  for (auto& y : v.at("outputs").as_array()[0].at("true").as_array()) {
    low = std::min(low, y.as_number());
    high = std::max(high, y.as_number());
  }
  EXPECT_EQ(low, -42);
  EXPECT_EQ(high, 42);
  for (auto& t : v.at("x").as_array()) {
    ASSERT_GT(t.as_number(), last);
    last = t.as_number();
  }
  EXPECT_EQ(v.at("path").at("true").as_array()[0].size(), 200u);
  // the liveliest window holds a jump
  const auto first = v.at("path").at("first").as_integer();
  EXPECT_TRUE((first <= 54'321 && 54'321 < first + 200) || (first <= 77'777 && 77'777 < first + 200));
}

TEST(Trajectory, RefusesShapesThatDiffer) {
  try {
    trajectory(wave(2, 50, 0), wave(2, 49, 0), {}, {});
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "trajectory: decoded: expected 2 rows x 50 frames, found 2 x 49");
  }
}

TEST(Readable, HasSensibleDigits) {
  EXPECT_EQ(readable(0.764682520151), "0.7647");
  EXPECT_EQ(readable(-12.3456), "−12.35");
  EXPECT_EQ(readable(123456.7), "123457");
  EXPECT_EQ(readable(0), "0");
  EXPECT_EQ(readable(10), "10");
  EXPECT_EQ(readable(9.99996), "10.00");
  EXPECT_EQ(readable(999.96), "1000");
  EXPECT_EQ(readable(0.00001234), "1.234e-05");
  EXPECT_EQ(readable(kNoNumber), "–");
  EXPECT_EQ(readable(-HUGE_VAL), "−∞");
}

}  // namespace
}  // namespace percept::evaluation
