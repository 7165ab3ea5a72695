// The published table of decoders on flint_run1 and its relatives (Burkhart et al. 2020; bci/reference), each row from
// the recording to the score; and whether their covariances tell the truth.
// The filters alone, given f and Q, are held to 1e-9 in tests/filters/test_reference.cpp.
#include <gmock/gmock.h>

#include <fstream>
#include <map>

#include "data/loaders.h"
#include "evaluation/run.h"
#include "percept/registry.h"
#include "tests/support/data.h"

namespace percept {
namespace {

struct Node {
  std::string name, text;  ///< text: the keys below [[stage]] but for the name
};

std::string pipeline(const std::string& data, const std::vector<Node>& nodes, const std::string& split,
                     const std::vector<std::string>& scored,
                     const std::string& metrics = R"(["nrmse", "maae", "r2"])") {
  std::string s = "[input]\ndata = \"" + data + "\"\n";
  for (const Node& n : nodes) s += "[[stage]]\nname = \"" + n.name + "\"\n" + n.text + "\n";
  s += "[[split]]\nname = \"official\"\n" + split + "\n";
  for (const std::string& n : scored)
    s += "[[score]]\nname = \"" + n + "\"\nfrom = \"" + n + "\"\nmetrics = " + metrics +
         "\npermutations = 0\nshuffles = 0\nconfounds = []\n";
  return s + "[run]\nprecision = \"f64\"\nseed = 1\n";
}

/// The result of a run.
Value run(const std::string& text) {
  const auto folder = testing::temporary_folder();
  std::ofstream(folder / "methods.toml") << text;
  evaluation::RunRequest request;
  request.pipeline = read_pipeline(folder / "methods.toml", builtin_registry());
  request.recording = data::load_input(request.pipeline.input, folder);
  request.output = folder / "run";
  Counters counters;
  request.options.counters = &counters;
  return evaluation::run_pipeline(builtin_registry(), request).result;
}

double metric(const Value& result, const std::string& path) {
  const Value* v = result.at("scores").find_path(path);
  if (!v) throw Error("no score " + path);
  return v->as_number();
}
double metric(const Value& result, const std::string& path, std::size_t output) {
  return result.at("scores").find_path(path)->as_array().at(output).as_number();
}

const std::string kFlint = "train_rows = [0, 4999]\ntest_rows = [5000, 5999]";
/// A published error, and what a method of that name may be worse by.
constexpr double kSlack = .005;

TEST(MethodsTable, WienerFiltersOfFlint) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/flint_run1/x.csv");
  const std::string ols = "use = \"ridge\"\ntarget = \"kinematics\"\nalpha = 0.0\n";
  const Value r = run(pipeline("flint_run1",
                               {{"three", "use = \"lag\"\nfrom = \"activity\"\nlags = 2"},
                                {"wiener_3", ols + "from = \"three\""},
                                {"ten", "use = \"lag\"\nfrom = \"activity\"\nlags = 9"},
                                {"wiener_10", ols + "from = \"ten\""}},
                               kFlint + "\ngap_rows = 9", {"wiener_3", "wiener_10"}));
  EXPECT_NEAR(metric(r, "wiener_3.nrmse"), .692438, kSlack);
  EXPECT_NEAR(metric(r, "wiener_3.maae"), .847, kSlack);
  EXPECT_NEAR(metric(r, "wiener_10.nrmse"), .658771, kSlack);
  EXPECT_NEAR(metric(r, "wiener_10.maae"), .823, kSlack);
}

TEST(MethodsTable, LinearDecodersOfChewie) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/dad_chewie/spikes_te.csv");
  const Value r = run(pipeline("dad_chewie",
                               {{"kalman", "use = \"kalman\"\nfrom = \"activity\"\ntarget = \"kinematics\""},
                                {"ols", "use = \"ridge\"\nfrom = \"activity\"\ntarget = \"kinematics\"\nalpha = 0.0"}},
                               "train_rows = [0, 1199]\ntest_rows = [1200, 3017]", {"kalman", "ols"}));
  EXPECT_NEAR(metric(r, "kalman.r2", 0), .426, kSlack);
  EXPECT_NEAR(metric(r, "kalman.r2", 1), .423, kSlack);
  EXPECT_NEAR(metric(r, "ols.r2", 0), .539, kSlack);
  EXPECT_NEAR(metric(r, "ols.r2", 1), .506, kSlack);
}

TEST(MethodsTable, WienerFilterOfContdata95) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/contdata95/contdata95.mat");
  const Value r = run(pipeline("contdata95",
                               {{"ten", "use = \"lag\"\nfrom = \"activity\"\nlags = 9"},
                                {"wiener_10", "use = \"ridge\"\ntarget = \"kinematics\"\nalpha = 0.0\nfrom = \"ten\""}},
                               "train_rows = [0, 21988]\ntest_rows = [26700, 31412]\ngap_rows = 9", {"wiener_10"},
                               R"(["mean_r"])"));
  EXPECT_NEAR(metric(r, "mean_r"), .880105, kSlack);
}

const Node kNadarayaWatson{"nw", "use = \"nadaraya_watson\"\nfrom = \"activity\"\ntarget = \"kinematics\""};
Node dkf(const std::string& name, const std::string& from, const std::string& more = "") {
  return {name, "use = \"dkf\"\nfrom = \"" + from + "\"\ntarget = \"kinematics\"\ncenter = false\n" + more};
}

TEST(MethodsTableSlow, NadarayaWatsonBehindTheFilterAndItsThreeFallbacks) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/flint_run1/x.csv");
  const Value r = run(pipeline("flint_run1",
                               {kNadarayaWatson,
                                {"kernel", kNadarayaWatson.text + "\ncovariance = \"kernel\""},
                                dkf("constant", "nw"),
                                dkf("inflate", "kernel", "fallback = \"inflate\""),
                                dkf("robust", "kernel", "fallback = \"robust\""),
                                dkf("clip", "kernel", "fallback = \"clip\"")},
                               kFlint, {"nw", "constant", "inflate", "robust", "clip", "kernel"}));
  const std::map<std::string, std::pair<double, double>> published{{"nw", {.638546, .809471}},
                                                                   {"constant", {.603625, .766832}},
                                                                   {"inflate", {.625812, .770188}},
                                                                   {"robust", {.676524, .775538}},
                                                                   {"clip", {.649331, .771081}}};
  for (const auto& [name, scores] : published) {
    EXPECT_NEAR(metric(r, name + ".nrmse"), scores.first, 5e-4) << name;
    EXPECT_NEAR(metric(r, name + ".maae"), scores.second, 5e-4) << name;
  }
  // a covariance that is learnt nearby is too sure of itself, and the result says so
  EXPECT_EQ(r.at("calibration").at("kernel").get("verdict", ""), "overconfident");
  EXPECT_FALSE(r.at("calibration").at("kernel").get("calibrated", true));
}

/// One map of each kind on flint, the filter or state behind it where it has one.
std::vector<Node> every_map(const std::string& from) {
  const std::string common = "from = \"" + from + "\"\ntarget = \"kinematics\"\n";
  std::vector<Node> nodes{
      {"ridge", "use = \"ridge\"\n" + common},
      {"nw", "use = \"nadaraya_watson\"\n" + common},
      {"gp", "use = \"gaussian_process\"\nhyper_frames = 400\niterations = 10\n" + common},
      {"gp_posterior",
       "use = \"gaussian_process\"\ncovariance = \"posterior\"\nhyper_frames = 400\niterations = 10\n" + common},
  };
  if (PERCEPT_WITH_TORCH) {
    nodes.push_back({"network", "use = \"dense_network\"\nlayers = [10]\nepochs = 40\n" + common});
    nodes.push_back({"gru", "use = \"recurrent_network\"\nunits = 24\nepochs = 25\ndropout = 0.2\n" + common});
  }
  return nodes;
}
std::vector<std::string> names_of(const std::vector<Node>& nodes) {
  std::vector<std::string> names;
  for (const Node& n : nodes) names.push_back(n.name);
  return names;
}

TEST(MethodsTableSlow, EllipsesOfEveryMapHoldWhatTheySay) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/flint_run1/x.csv");
  std::vector<Node> nodes = every_map("activity");
  nodes.push_back({"blend", "use = \"mixture\"\nfrom = [\"ridge\", \"gp\"]\ntarget = \"kinematics\""});
  const Value r = run(pipeline("flint_run1", nodes, kFlint, names_of(nodes)));
  for (const std::string& name : names_of(nodes)) {
    const Value& c = r.at("calibration").at(name);
    double inside = 0;
    for (const Value& level : c.at("levels").as_array())
      if (level.at("nominal").as_number() == 0.9) inside = level.at("observed").as_number();
    EXPECT_GE(inside, .85) << name;
    EXPECT_LE(inside, .95) << name;
    EXPECT_TRUE(c.get("calibrated", false)) << name;
  }
}

}  // namespace
}  // namespace percept
