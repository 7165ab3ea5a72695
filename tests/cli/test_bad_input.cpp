/// Bad input, from outside: one line that names the file, the place, what was found and what was expected; exit code 3.
#include <hdf5.h>
#include <matio.h>

#include <functional>

#include "core/model.h"
#include "io/npy.h"
#include "tests/cli/program.h"

namespace percept::cli_test {
namespace {

using ::testing::HasSubstr;

std::string replaced(std::string text, const std::string& old, const std::string& by) {
  const auto at = text.find(old);
  if (at == std::string::npos) throw std::runtime_error("not there: " + old);
  return text.replace(at, old.size(), by);
}

/// base.toml with some text replaced.
void edit(const fs::path& folder, const std::vector<std::pair<std::string, std::string>>& edits) {
  std::string text = read_file(folder / "base.toml");
  for (auto& [old, by] : edits) text = replaced(text, old, by);
  write(folder / "base.toml", text);
}

/// The lines of x.csv after `change` saw each cell of line 5 (a cell may become several), or with `keep` lines only.
void edit_line(const fs::path& folder, const std::function<std::string(const std::string&)>& change) {
  std::ifstream in(folder / "x.csv");
  std::string line, all;
  for (int k = 1; std::getline(in, line); ++k) all += (k == 5 ? change(line) : line) + "\n";
  write(folder / "x.csv", all);
}

void keep_lines(const fs::path& file, int n) {
  std::ifstream in(file);
  std::string line, all;
  for (int k = 0; k < n && std::getline(in, line); ++k) all += line + "\n";
  write(file, all);
}

/// x.csv with its columns made anew from the old ones.
void map_columns(const fs::path& folder, const std::function<std::vector<double>(std::vector<double>)>& f) {
  const Eigen::MatrixXd x = testing::read_reference(folder / "x.csv");
  std::ofstream out(folder / "x.csv");
  for (Index k = 0; k < x.rows(); ++k) {
    std::vector<double> row(4);
    for (Index c = 0; c < 4; ++c) row[static_cast<std::size_t>(c)] = x(k, c);
    row = f(row);
    for (std::size_t c = 0; c < row.size(); ++c) out << (c ? "," : "") << row[c];
    out << "\n";
  }
}

// the activity in another kind of file: 200 x 4

void write_npy(const fs::path& folder) {
  const Eigen::MatrixXd x = testing::read_reference(folder / "x.csv").transpose();
  io::write_npy(folder / "x.npy", ConstFrames(x.data(), Scalar::f64, 4, x.cols(), 4));
}
void write_mat(const fs::path& folder) {
  Eigen::MatrixXd x = testing::read_reference(folder / "x.csv");
  std::size_t shape[2] = {static_cast<std::size_t>(x.rows()), 4};
  mat_t* mat = Mat_CreateVer((folder / "x.mat").c_str(), nullptr, MAT_FT_MAT5);
  matvar_t* v = Mat_VarCreate("X", MAT_C_DOUBLE, MAT_T_DOUBLE, 2, shape, x.data(), 0);
  ASSERT_EQ(Mat_VarWrite(mat, v, MAT_COMPRESSION_NONE), 0);
  Mat_VarFree(v);
  Mat_Close(mat);
}
void write_h5(const fs::path& folder) {
  const Eigen::MatrixXd x = testing::read_reference(folder / "x.csv").transpose();
  const hid_t f = H5Fcreate((folder / "x.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t shape[2] = {static_cast<hsize_t>(x.cols()), 4};
  const hid_t space = H5Screate_simple(2, shape, nullptr);
  const hid_t set = H5Dcreate2(f, "x", H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x.data());
  H5Dclose(set);
  H5Sclose(space);
  H5Fclose(f);
}
void use_file(const fs::path& folder, const std::string& name) {
  edit(folder, {{"\"x.csv\"\nheader = false", "\"" + name + "\""}});
}
void truncate(const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); }

/// kalman.model = "models/kalman", whose model.json was changed.
void with_model(const fs::path& folder, const std::function<void(Model&)>& change) {
  ASSERT_EQ(percept(folder, {"fit", "base.toml", "-o", "models"}).code, 0);
  Model m = Model::load(folder / "models/kalman");
  change(m);
  m.save(folder / "models/kalman");
  edit(folder, {{"target = \"kinematics\"", "target = \"kinematics\"\nmodel = \"models/kalman\""}});
}

struct BadInput {
  const char* name;
  std::function<void(const fs::path& folder)> spoil;
  std::vector<std::string> says;  ///< place, found, expected
};
void PrintTo(const BadInput& b, std::ostream* os) { *os << b.name; }

class BadInputs : public ::testing::TestWithParam<BadInput> {};

TEST_P(BadInputs, EndsWithOneLineThatSaysWhat) {
  const fs::path folder = workbench();
  ASSERT_NO_FATAL_FAILURE(GetParam().spoil(folder));
  const Result r = percept(folder, {"run", "base.toml", "-o", "out", "--quiet", "--json"});
  EXPECT_EQ(r.code, 3);
  ASSERT_THAT(r.error, ::testing::StartsWith("error: "));
  EXPECT_EQ(std::count(r.error.begin(), r.error.end(), '\n'), 1) << r.error;
  EXPECT_THAT(r.error, HasSubstr("expected "));
  for (auto& text : GetParam().says) EXPECT_THAT(r.error, HasSubstr(text));
  EXPECT_EQ("error: " + r.json().at("error").as_string() + "\n", r.error);
  // and nothing is left behind
  EXPECT_FALSE(fs::exists(folder / "out"));
  for (auto& entry : fs::directory_iterator(folder))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
}

const char* const kLag = "use = \"lag\"\nlags = 3\n[[stage]]\nuse = \"kalman\"";

INSTANTIATE_TEST_SUITE_P(
    Files, BadInputs,
    ::testing::Values(BadInput{"MissingFile",
                               [](auto& f) { fs::remove(f / "x.csv"); },
                               {"x.csv: expected a readable file, found No such file"}},
                      BadInput{"MissingPipeline",
                               [](auto& f) { fs::remove(f / "base.toml"); },
                               {"base.toml: expected a readable file, found No such file"}},
                      BadInput{"DirectoryInsteadOfFile",
                               [](auto& f) {
                                 fs::remove(f / "x.csv");
                                 fs::create_directory(f / "x.csv");
                               },
                               {"x.csv: expected a file, found a directory"}},
                      BadInput{"DirectoryInsteadOfPipeline",
                               [](auto& f) {
                                 fs::remove(f / "base.toml");
                                 fs::create_directory(f / "base.toml");
                               },
                               {"base.toml: expected a file, found a directory"}},
                      BadInput{"TruncatedNpy",
                               [](auto& f) {
                                 write_npy(f);
                                 truncate(f / "x.npy");
                                 use_file(f, "x.npy");
                               },
                               {"x.npy: ", "bytes", "200", "found "}},
                      BadInput{"TruncatedMat",
                               [](auto& f) {
                                 write_mat(f);
                                 truncate(f / "x.mat");
                                 use_file(f, "x.mat");
                               },
                               {"x.mat: ", "found "}},
                      BadInput{"TruncatedH5",
                               [](auto& f) {
                                 write_h5(f);
                                 truncate(f / "x.h5");
                                 use_file(f, "x.h5");
                               },
                               {"x.h5: ", "found "}},
                      BadInput{"WrongDtype",
                               [](auto& f) {
                                 write_npy(f);
                                 write(f / "x.npy", replaced(read_file(f / "x.npy"), "'<f8'", "'|O8'"));
                                 use_file(f, "x.npy");
                               },
                               {"x.npy: header: expected descr: numbers", "found objects"}},
                      BadInput{"TextInAMat",
                               [](auto& f) {
                                 std::size_t shape[2] = {1, 3};
                                 char text[] = "abc";
                                 mat_t* mat = Mat_CreateVer((f / "x.mat").c_str(), nullptr, MAT_FT_MAT5);
                                 matvar_t* v = Mat_VarCreate("X", MAT_C_CHAR, MAT_T_UINT8, 2, shape, text, 0);
                                 Mat_VarWrite(mat, v, MAT_COMPRESSION_NONE);
                                 Mat_VarFree(v);
                                 Mat_Close(mat);
                                 use_file(f, "x.mat");
                               },
                               {"x.mat: "}},
                      BadInput{"RaggedCsv",
                               [](auto& f) { edit_line(f, [](auto& l) { return l.substr(0, l.rfind(',')); }); },
                               {"x.csv: line 5: expected 4 cells", "found 3"}},
                      BadInput{"TextInACsv",
                               [](auto& f) { edit_line(f, [](auto& l) { return "abc" + l.substr(l.find(',')); }); },
                               {"x.csv: line 5, column 1: expected a number, found 'abc'"}},
                      BadInput{"InfCell",
                               [](auto& f) { edit_line(f, [](auto& l) { return "inf" + l.substr(l.find(',')); }); },
                               {"x.csv: line 5, column 1: expected a finite number", "found 'inf'"}},
                      BadInput{
                          "NothingButNaN",
                          [](auto& f) {
                            map_columns(f, [](auto r) {
                              r[1] = NAN;
                              return r;
                            });
                          },
                          {"base.toml: kalman: training frames: expected at least 2 without missing values, found 0"}},
                      BadInput{"EmptyCsv",
                               [](auto& f) { write(f / "x.csv", ""); },
                               {"x.csv: expected at least one line of numbers, found an empty file"}},
                      BadInput{"ZeroRows",
                               [](auto& f) {
                                 write(f / "x.csv", "a,b,c,d\n");
                                 edit(f, {{"header = false", "header = true"}});
                               },
                               {"x.csv: expected at least one line of numbers, found only a header"}},
                      BadInput{"UnstatedHeader",
                               [](auto& f) {
                                 edit(f, {{"header = false\n", ""}});
                               },
                               {"base.toml: input.stream.header: expected true or false for x.csv"}},
                      BadInput{"MismatchedRows",
                               [](auto& f) { keep_lines(f / "z.csv", 199); },
                               {"z.csv: frames: expected 200, as stream 'activity' has, found 199"}},
                      BadInput{"RateOfZero",
                               [](auto& f) {
                                 edit(f, {{"rate_hz = 10", "rate_hz = 0"}});
                               },
                               {"base.toml: input.stream.rate_hz = 0: expected a rate above 0 Hz"}},
                      BadInput{"ModelOfAnotherVersion",
                               [](auto& f) { with_model(f, [](Model& m) { m.meta["version"] = 99; }); },
                               {"models/kalman: version: expected 1 of 'kalman', found 99"}},
                      BadInput{"ModelOfAnotherStage",
                               [](auto& f) { with_model(f, [](Model& m) { m.meta["stage"] = "ridge"; }); },
                               {"models/kalman: stage: expected a model of 'kalman', found ridge"}},
                      BadInput{"ModelOfAnotherFormat",
                               [](auto& f) {
                                 with_model(f, [](Model&) {});
                                 const auto file = f / "models/kalman/model.json";
                                 Value v = read_json(file);
                                 v["format_version"] = 7;
                                 write(file, to_json(v));
                               },
                               {"models/kalman/model.json: format_version: expected 1, found 7"}},
                      BadInput{"TruncatedModel",
                               [](auto& f) {
                                 with_model(f, [](Model&) {});
                                 truncate(f / "models/kalman/weights.safetensors");
                               },
                               {"models/kalman/weights.safetensors: ", "found "}},
                      BadInput{"MissingModel",
                               [](auto& f) {
                                 edit(f, {{"target = ", "model = \"nowhere\"\ntarget = "}});
                               },
                               {"nowhere: expected a model folder", "found nothing"}}),
    [](auto& i) { return std::string(i.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Pipelines, BadInputs,
    ::testing::Values(
        BadInput{"BrokenToml",
                 [](auto& f) {
                   edit(f, {{"[run]", "[run"}});
                 },
                 {"base.toml:", "expected TOML"}},
        BadInput{"UnknownStage",
                 [](auto& f) {
                   edit(f, {{"\"kalman\"", "\"kalmann\""}});
                 },
                 {"base.toml:12: kalmann.use = \"kalmann\": expected a known stage", "did you mean 'kalman'?"}},
        BadInput{
            "UnknownKey",
            [](auto& f) {
              edit(f, {{"target = ", "steady_stat = true\ntarget = "}});
            },
            {"base.toml: kalman.steady_stat (line 13): expected a key of 'kalman'", "did you mean 'steady_state'?"}},
        BadInput{"UnknownSection",
                 [](auto& f) {
                   edit(f, {{"[run]", "[runn]"}});
                 },
                 {"base.toml.runn (line 23): expected one of", "did you mean 'run'?"}},
        BadInput{"UnknownMetric",
                 [](auto& f) {
                   edit(f, {{"\"nrmse\"", "\"nrsme\""}});
                 },
                 {"base.toml: score.metrics = nrsme: expected one of rmse, nrmse"}},
        BadInput{"UnknownTarget",
                 [](auto& f) {
                   edit(f, {{"target = \"kinematics\"", "target = \"kinematic\""}});
                 },
                 {"base.toml: target = \"kinematic\": expected", "kinematics"}},
        BadInput{"UnknownStream",
                 [](auto& f) {
                   edit(f, {{"target = ", "from = \"activty\"\ntarget = "}});
                 },
                 {"base.toml: kalman.from = \"activty\": expected a stage or stream", "did you mean 'activity'?"}},
        BadInput{"ValueOutOfRange",
                 [](auto& f) {
                   edit(f, {{"target = ", "regularisation = -1\ntarget = "}});
                 },
                 {"base.toml: kalman.regularisation (line 13) = -1: expected a value in [0, 1000000]"}},
        BadInput{"ValueOfAnotherType",
                 [](auto& f) {
                   edit(f, {{"target = ", "center = \"yes\"\ntarget = "}});
                 },
                 {"base.toml: kalman.center (line 13) = \"yes\": expected"}},
        BadInput{"WordNotInTheList",
                 [](auto& f) {
                   edit(f, {{"target = ", "noise = \"ful\"\ntarget = "}});
                 },
                 {"base.toml: kalman.noise (line 13) = \"ful\": expected", "diagonal"}},
        BadInput{
            "JoinOfUnequalRate",
            [](auto& f) {
              edit(f, {{"rate_hz = 10", "rate_hz = 20"},
                       {"target = ", "from = [\"activity\", \"kinematics\"]\ntarget = "}});
            },
            {"base.toml: kalman.from: expected inputs of one rate, but 'activity' has 20 Hz and 'kinematics' 10 Hz"}},
        BadInput{"SingularCovariance",
                 [](auto& f) {
                   map_columns(f, [](auto r) {
                     r[1] = r[0];
                     return r;
                   });
                 },
                 {"base.toml: kalman: noise covariance R: expected a positive definite matrix",
                  "found one that is singular to working precision"}},
        BadInput{"DeadChannel",
                 [](auto& f) {
                   map_columns(f, [](auto r) {
                     r[2] = 7;
                     return r;
                   });
                 },
                 {"base.toml: kalman: channel 'activity[2]': expected", "found a constant channel"}},
        BadInput{"ConstantTarget",
                 [](auto& f) {
                   std::string z;
                   for (int k = 0; k < 200; ++k) z += "1," + std::to_string(k * k % 17) + "\n";
                   write(f / "z.csv", z);
                 },
                 {"base.toml: kalman: target 'kinematics[0]': expected values that vary over the training frames, "
                  "found the constant 1"}},
        BadInput{"FewerRowsThanChannels",
                 [](auto& f) {
                   edit(f, {{"[0, 149]", "[0, 3]"}});
                 },
                 {"base.toml: kalman: training frames: expected at least 7 for 4 channels and 2 outputs", "found 4"}},
        BadInput{"FewerRowsThanFeatures",
                 [](auto& f) {
                   edit(f, {{"\"kalman\"", "\"ridge\"\nalpha = [0.0]\nintercept = false"}, {"[0, 149]", "[0, 2]"}});
                 },
                 {"base.toml: ridge: training frames: expected at least as many as there are features", "found 3"}},
        BadInput{"NoRowForTheOffset",
                 [](auto& f) {
                   edit(f, {{"\"kalman\"", "\"ridge\"\nalpha = [0.0]"}, {"[0, 149]", "[0, 3]"}});
                 },
                 {"base.toml: ridge: training frames: expected at least as many as there are features, and one for "
                  "the offset (5); set alpha > 0",
                  "found 4"}},
        BadInput{"OverlappingSplit",
                 [](auto& f) {
                   edit(f, {{"[150, 199]", "[140, 199]"}});
                 },
                 {"base.toml: split official.test_rows = 140..199: expected no row in common with train_rows (0..149), "
                  "found 140..149"}},
        BadInput{"RowsPastTheEnd",
                 [](auto& f) {
                   edit(f, {{"[150, 199]", "[150, 200]"}});
                 },
                 {"base.toml: split official.test_rows = [150, 200]: expected rows inside 0..199"}},
        BadInput{"GapLeftOut",
                 [](auto& f) {
                   edit(f, {{"use = \"kalman\"", kLag}});
                 },
                 {"base.toml: split official.gap_s = 0 frames (0 s): expected at least 3 frames (0.3 s): so far back "
                  "does lag look"}},
        BadInput{"GapTooShort",
                 [](auto& f) {
                   edit(f, {{"use = \"kalman\"", kLag}, {"[150, 199]", "[150, 199]\ngap_s = 0.2"}});
                 },
                 {"base.toml: split official.gap_s = 2 frames (0.2 s): expected at least 3 frames (0.3 s)"}},
        BadInput{"NoSplit",
                 [](auto& f) {
                   edit(f, {{"[[split]]\nname = \"official\"\ntrain_rows = [0, 149]\ntest_rows = [150, 199]\n", ""}});
                 },
                 {"base.toml: split: expected a [[split]] that says which rows are held out"}},
        BadInput{"TooFewResamples",
                 [](auto& f) {
                   edit(f, {{"bootstrap = 20", "bootstrap = 3"}});
                 },
                 {"base.toml: score.bootstrap = 3: expected 0 or at least 20 resamples"}},
        // each value may be, and each fails when the model is fitted: more components than rows
        BadInput{"SearchWithoutAValidCandidate",
                 [](auto& f) {
                   edit(f, {{"use = \"kalman\"", "use = \"pca\"\n[[stage]]\nuse = \"kalman\""},
                            {"[[split]]", "[search]\npca.components = [5, 6]\n[[split]]"}});
                 },
                 {"base.toml: search: expected at least one candidate that works, but none of 2 does; the first "
                  "(pca.components = 5) failed with: base.toml: pca.components = 5: expected 1 to 4 (4 rows, "}}),
    [](auto& i) { return std::string(i.param.name); });

/// The same files, whole, are read: what the tests above refuse is the damage.
TEST(GoodInput, EveryKindOfFileGivesTheSameScores) {
  const fs::path folder = workbench();
  const Result csv = percept(folder, {"run", "base.toml", "-o", "csv", "--json"});
  ASSERT_EQ(csv.code, 0) << csv.error;
  write_npy(folder);
  write_mat(folder);
  write_h5(folder);
  const std::string base = read_file(folder / "base.toml");
  for (const std::string kind : {"npy", "mat", "h5"}) {
    write(folder / "base.toml", base);
    use_file(folder, "x." + kind);
    const Result r = percept(folder, {"run", "base.toml", "-o", kind, "--json"});
    ASSERT_EQ(r.code, 0) << r.error;
    EXPECT_EQ(r.json().at("scores"), csv.json().at("scores")) << kind;
  }
}

/// One missing cell is no error: the frame is left out of the fit, and that is said.
TEST(GoodInput, NaNCellIsMissing) {
  const fs::path folder = workbench();
  edit_line(folder, [](auto& l) { return "nan" + l.substr(l.find(',')); });
  const Result r = percept(folder, {"run", "base.toml", "-o", "out", "--json"});
  EXPECT_EQ(r.code, 0);
  EXPECT_THAT(r.error, HasSubstr("kalman: 1 training frames with missing values left out"));
  EXPECT_LT(r.json().at("scores").at("nrmse").as_number(), 0.5);
}

}  // namespace
}  // namespace percept::cli_test
