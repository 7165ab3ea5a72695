/// The program from outside: what it prints, where, and with which exit code.
#include <cmath>

#include "tests/cli/program.h"
#include "tests/data/environment.h"
#include "tests/io/nifti_bytes.h"

namespace percept::cli_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class Commands : public ::testing::Test {
 protected:
  Result run(const std::vector<std::string>& words) const { return percept(folder_, words); }
  /// base.toml into the folder `name`.
  Value run_base(const std::string& name) const {
    const Result r = run({"run", "base.toml", "-o", name, "--json"});
    EXPECT_EQ(r.code, 0) << r.error;
    return r.json();
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}));
  }

  const fs::path folder_ = workbench();
};

TEST_F(Commands, HelpStagesAndVersionAnswer) {
  const Result help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out,
              AllOf(HasSubstr("percept run examples/flint_kalman.toml"),
                    HasSubstr("Exit codes: 0 ok, 2 wrong usage, 3 bad input, 4 the run failed, 130 interrupted")));
  EXPECT_THAT(help.error, IsEmpty());
  for (const char* command :
       {"run", "fit", "report", "gallery", "rerun", "info", "check", "stages", "data", "completion", "docs"}) {
    EXPECT_THAT(help.out, HasSubstr("\n  " + std::string(command) + " ")) << command;
    const Result one = run({command, "--help"});
    EXPECT_EQ(one.code, 0) << command;
    EXPECT_THAT(one.out, HasSubstr(std::string("Usage: percept ") + command));
  }
  const Result stages = run({"stages"});
  EXPECT_EQ(stages.code, 0);
  EXPECT_THAT(stages.out, AllOf(HasSubstr("kalman"), HasSubstr("ridge"), HasSubstr("fir")));
  EXPECT_THAT(run({"stages", "kalman"}).out, AllOf(HasSubstr("regularisation"), HasSubstr("Wu")));
  EXPECT_THAT(run({"--version"}).out, StartsWith("percept 0."));
  EXPECT_EQ(run({"--version"}).code, 0);
}

TEST_F(Commands, JsonIsOneObjectAndNothingElse) {
  run_base("run");
  const std::vector<std::vector<std::string>> all{{"run", "base.toml"},
                                                  {"run", "base.toml", "--dry-run"},
                                                  {"fit", "base.toml"},
                                                  {"report", "run"},
                                                  {"rerun", "run"},
                                                  {"info", "x.csv"},
                                                  {"check", "base.toml", "x.csv"},
                                                  {"stages"},
                                                  {"stages", "dkf"},
                                                  {"data", "list"},
                                                  {"completion", "bash"},
                                                  {"docs"}};
  for (auto words : all) {
    words.emplace_back("--json");
    SCOPED_TRACE(words[0]);
    const Result r = run(words);
    EXPECT_EQ(r.code, 0) << r.error;
    EXPECT_GT(r.json().size(), 0u);
  }
  // also where it fails: the message is in the object, and on standard error for those who only look there
  for (const auto& words : std::vector<std::vector<std::string>>{{"run", "none.toml", "--json"},
                                                                 {"info", "none.csv", "--json"},
                                                                 {"run", "--json"},
                                                                 {"data", "path", "none", "--json"}}) {
    const Result r = run(words);
    const Value v = r.json();
    EXPECT_EQ(v.at("exit").as_integer(), r.code);
    EXPECT_NE(r.code, 0);
    EXPECT_EQ(r.error, "error: " + v.at("error").as_string() + "\n");
  }
}

TEST_F(Commands, RunPrintsWhatItPromises) {
  const Value v = run_base("out/put");
  for (const char* key : {"scores", "controls", "split", "intervals", "seconds", "peak_rss_bytes", "output"})
    EXPECT_TRUE(v.contains(key)) << key;
  EXPECT_LT(v.at("scores").at("nrmse").as_number(), 0.5);
  EXPECT_GT(v.at("controls").at("shuffled").at("nrmse").as_number(), 0.8);
  EXPECT_EQ(v.at("split").as_array().at(0).at("folds").as_array().at(0).at("test_frames").as_integer(), 50);
  EXPECT_GT(v.at("seconds").as_number(), 0);
  EXPECT_GT(v.at("peak_rss_bytes").as_integer(), 1'000'000);
  EXPECT_EQ(v.at("output").as_string(), "out/put");
  for (const char* file :
       {"result.json", "provenance.json", "config.toml", "report.html", "predictions.percept", "run.json"})
    EXPECT_TRUE(fs::is_regular_file(folder_ / "out/put" / file)) << file;
  const Result text = run({"run", "base.toml"});
  EXPECT_THAT(text.out, AllOf(HasSubstr("nrmse"), HasSubstr("shuffled"), HasSubstr("runs/base/report.html")));
  EXPECT_TRUE(fs::exists(folder_ / "runs/base/report.html"));
}

TEST_F(Commands, ValuesAreChangedFromTheCommandLine) {
  const Result r = run({"run", "base.toml", "--set", "kalman.noise=diagonal", "--set", "run.seed=5", "--set",
                        "official.gap_s=1", "--threads", "1", "-o", "set", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_EQ(r.json().at("split").as_array().at(0).at("folds").as_array().at(0).at("train_frames").as_integer(), 140);
  EXPECT_THAT(read_file(folder_ / "set/config.toml"), AllOf(HasSubstr("diagonal"), HasSubstr("seed = 5")));
  const Result typo = run({"run", "base.toml", "--set", "kalmn.noise=diagonal"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.error, HasSubstr("did you mean 'kalman'"));
}

TEST_F(Commands, ExitCodes) {
  EXPECT_EQ(run({}).code, 2);
  EXPECT_EQ(run({"rum"}).code, 2);
  EXPECT_EQ(run({"run"}).code, 2);
  EXPECT_EQ(run({"run", "base.toml", "--nonsense"}).code, 2);
  EXPECT_EQ(run({"run", "base.toml", "--threads", "0"}).code, 2);
  EXPECT_EQ(run({"run", "none.toml"}).code, 3);
  EXPECT_EQ(run({"stages", "kalmann"}).code, 3);
  EXPECT_EQ(run({"data", "path", "none"}).code, 3);
  write(folder_ / "stale.md", "old\n");
  EXPECT_EQ(run({"docs", "--check", "stale.md"}).code, 4);
}

TEST_F(Commands, RerunIsIdenticalAndSaysSo) {
  run_base("run");
  Result r = run({"rerun", "run"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(r.out, AllOf(HasSubstr("are the same, byte for byte"), HasSubstr("run.rerun")));
  r = run({"rerun", "run", "-o", "again", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_GE(r.json().at("identical").size(), 8u);
  EXPECT_EQ(r.json().at("different").size(), 0u);
  EXPECT_EQ(read_file(folder_ / "run/result.json"), read_file(folder_ / "again/result.json"));
}

TEST_F(Commands, WhatAKilledRunLeftIsTakenUpOrThrownAway) {
  const fs::path left = folder_ / "run.work/fits/0123", mine = folder_ / "run.work/notes.txt";
  auto leave = [&] {
    fs::create_directories(left);
    write(mine, "mine\n");
  };
  leave();
  run_base("run");
  EXPECT_FALSE(fs::exists(left)) << "removed by a run that ends well";
  EXPECT_TRUE(fs::exists(mine)) << "but nothing else";
  leave();
  ASSERT_EQ(run({"run", "base.toml", "--set", "kalman.target=none", "-o", "run"}).code, 3);
  EXPECT_TRUE(fs::exists(left)) << "a run that fails leaves it";
  ASSERT_EQ(run({"run", "base.toml", "--fresh", "--set", "kalman.target=none", "-o", "run"}).code, 3);
  EXPECT_FALSE(fs::exists(left)) << "--fresh does not";
  leave();
  EXPECT_EQ(run({"rerun", "run"}).code, 0);
  EXPECT_TRUE(fs::exists(left));
}

TEST_F(Commands, RerunOfATamperedFolderFails) {
  run_base("run");
  const std::string result = read_file(folder_ / "run/result.json");
  write(folder_ / "run/result.json", result + "\n");
  Result r = run({"rerun", "run"});
  EXPECT_EQ(r.code, 4);
  EXPECT_THAT(r.error, AllOf(HasSubstr("1 of "), HasSubstr("differ from the first run: result.json")));
  fs::remove(folder_ / "run/result.json");
  r = run({"rerun", "run"});
  EXPECT_EQ(r.code, 4);
  EXPECT_THAT(r.error, HasSubstr("result.json"));
  write(folder_ / "run/result.json", result);
  // other input is no reason to compare
  std::ofstream(folder_ / "x.csv", std::ios::app) << "1,2,3,4\n";
  std::ofstream(folder_ / "z.csv", std::ios::app) << "1,2\n";
  r = run({"rerun", "run"});
  EXPECT_EQ(r.code, 3);
  EXPECT_THAT(r.error, AllOf(HasSubstr("run: inputs: expected the same bytes as then"), HasSubstr("x.csv")));
  r = run({"rerun", "."});
  EXPECT_EQ(r.code, 3);
  EXPECT_THAT(r.error, HasSubstr("provenance.json: expected a folder that percept run wrote"));
}

#ifdef __x86_64__
// the kernels of OpenBLAS for a processor of 2004 are called Prescott, and are chosen for processors newer than its list
TEST_F(Commands, NewProcessorsGetFastKernelsUnlessOthersAreAskedFor) {
  const auto blas_of = [&](const std::string& name) {
    run_base(name);
    const Value origin = parse_json(read_file(folder_ / name / "provenance.json"), name);
    return origin.at("libraries").at("blas").as_string();
  };
  {
    const testing::Environment asked("OPENBLAS_CORETYPE", "Prescott");
    EXPECT_THAT(blas_of("asked"), HasSubstr("Prescott"));
  }
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) GTEST_SKIP() << "no faster kernels run here";
  EXPECT_THAT(blas_of("chosen"), Not(HasSubstr("Prescott")));
}
#endif

TEST_F(Commands, PriorsAreShownKeptAndRepeated) {
  const testing::Environment cache("XDG_CACHE_HOME", (folder_ / "cache").string());
  std::string npy("\x93NUMPY\x01\x00\x76\x00", 10);
  npy += "{'descr': '<f8', 'fortran_order': False, 'shape': (20, 4), }";
  npy.resize(127, ' ');
  npy += "\n";
  for (int k = 0; k < 80; ++k) {
    const double v = std::sin(7.0 * k * k);
    npy.append(reinterpret_cast<const char*>(&v), sizeof v);
  }
  write(folder_ / "p.npy", npy);
  std::string text = read_file(folder_ / "base.toml");
  text.replace(text.find("[[stage]]"), 9,
               "[[prior]]\nname = \"pcs\"\nuse = \"pca\"\ncomponents = 2\nimages = \"p.npy\"\n"
               "[[stage]]\nuse = \"pca\"\nmodel = \"pcs\"\n[[stage]]");
  write(folder_ / "prior.toml", text);
  const Result dry = run({"run", "prior.toml", "--dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.error;
  EXPECT_THAT(dry.out, AllOf(HasSubstr("prior pcs"), HasSubstr("\nprior "), HasSubstr("p.npy")));
  const Result first = run({"run", "prior.toml", "-o", "run", "--json"});
  ASSERT_EQ(first.code, 0) << first.error;
  const Value told = first.json().at("priors").as_array().at(0);
  EXPECT_EQ(told.at("images").as_integer(), 20);
  EXPECT_TRUE(fs::exists(folder_ / "cache/percept/priors"));
  const Result second = run({"run", "prior.toml", "-o", "run2"});
  EXPECT_THAT(second.error, HasSubstr("prior pcs: fitted before, taken from"));
  EXPECT_EQ(read_file(folder_ / "run/result.json"), read_file(folder_ / "run2/result.json"));
  const Result again = run({"rerun", "run"});
  EXPECT_EQ(again.code, 0) << again.error;
  EXPECT_THAT(again.error, Not(HasSubstr("taken from"))) << "rerun fits anew";
  npy.back() ^= 1;
  write(folder_ / "p.npy", npy);
  const Result other = run({"rerun", "run"});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.error, HasSubstr("run: priors: expected the same bytes as then"));
}

TEST_F(Commands, ReportOfTwoRunsStandsSideBySide) {
  run_base("first");
  ASSERT_EQ(run({"run", "base.toml", "--set", "kalman.noise=diagonal", "-o", "second"}).code, 0);
  const Result r = run({"report", "first", "second", "-o", "both.html"});
  EXPECT_EQ(r.code, 0) << r.error;
  const std::string page = read_file(folder_ / "both.html");
  EXPECT_THAT(page, AllOf(HasSubstr("<html"), HasSubstr("first"), HasSubstr("second")));
  EXPECT_EQ(run({"report", "first"}).code, 0);
  const Result none = run({"report", "nowhere"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.error, HasSubstr("nowhere: report.json: expected a folder that percept run wrote"));
}

TEST_F(Commands, ModelsAreFittedOnceAndUsedAgain) {
  Result r = run({"fit", "base.toml", "-o", "models", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_EQ(r.json().at("models").as_array().at(0).at("frames").as_integer(), 150);
  const double scored = run_base("fitted").at("scores").at("nrmse").as_number();
  r = run({"run", "base.toml", "--set", "kalman.model=models/kalman", "-o", "loaded", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_EQ(r.json().at("scores").at("nrmse").as_number(), scored);
  EXPECT_THAT(run({"info", "models/kalman"}).out, AllOf(HasSubstr("model"), HasSubstr("Gamma")));
  EXPECT_EQ(run({"check", "models/kalman"}).code, 0);
}

TEST_F(Commands, InfoShowsAnImage) {
  io_test::NiftiBytes n;
  n.samples(io_test::counted(48));
  write(folder_ / "bold.nii", n.bytes());
  write(folder_ / "bold.json", R"({"RepetitionTime": 2.5, "SliceTiming": [0, 1.25]})");
  Result r = run({"info", "bold.nii", "--picture", "slice.png"});
  EXPECT_EQ(r.code, 0) << r.error;
  for (const char* line : {"shape        [2,3,2,4]", "voxel_mm     [2.0,3.0,4.0]", "orientation  RAS",
                           "repetition_time 2.5 s", "slice_timing_s [0.0,1.25]", "space        sform: scanner"})
    EXPECT_THAT(r.out, HasSubstr(line));
  EXPECT_THAT(read_file(folder_ / "slice.png"), ::testing::StartsWith("\x89PNG"));
  EXPECT_EQ(run({"check", "bold.nii"}).code, 0);
  r = run({"info", "x.csv", "--picture", "slice.png"});
  EXPECT_EQ(r.code, 2);
  EXPECT_THAT(r.error, HasSubstr("--picture needs an image of voxels (.nii or .nii.gz), found x.csv"));
  write(folder_ / "cut.nii", n.bytes().substr(0, 400));
  r = run({"check", "cut.nii"});
  EXPECT_EQ(r.code, 3);
  EXPECT_THAT(r.error, HasSubstr("cut.nii: size: expected the data of 2 x 3 x 2 x 4 x i16 from byte 352 on"));
}

TEST_F(Commands, ABidsFolderIsShownCheckedAndRun) {
  io_test::NiftiBytes bold, mask;
  bold.samples(io_test::counted(48));
  mask.shape = {2, 3, 2};
  mask.samples(std::vector<std::int16_t>{1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1});
  fs::create_directories(folder_ / "toy/sub-01/func");
  write(folder_ / "toy/dataset_description.json", R"({"Name": "Toy", "BIDSVersion": "1.8.0"})");
  write(folder_ / "toy/task-look_bold.json", R"({"RepetitionTime": 2.5})");
  const fs::path stem = folder_ / "toy/sub-01/func/sub-01_task-look_run-";
  for (const std::string run : {"1", "2"}) {
    write(stem.string() + run + "_bold.nii", bold.bytes());
    write(stem.string() + run + "_events.tsv", "onset\tduration\ttrial_type\n2.5\t2.5\tface\n");
  }
  write(folder_ / "mask.nii", mask.bytes());
  write(folder_ / "bids.toml", R"([input]
bids = "toy"
subject = "01"
run = "2"
mask = "mask.nii"
[[stage]]
use = "common_average"
)");
  Result r = run({"info", "toy"});
  EXPECT_EQ(r.code, 0) << r.error;
  for (const char* line : {"kind         BIDS data set", "name         Toy", "subjects     [\"01\"]", "bold         2"})
    EXPECT_THAT(r.out, HasSubstr(line));
  r = run({"check", "toy", "bids.toml"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(r.out, HasSubstr("toy: BIDS data set is fine"));
  r = run({"run", "bids.toml", "--dry-run"});
  EXPECT_THAT(r.out, HasSubstr("fmri {3}")) << r.error;
  r = run({"run", "bids.toml", "-o", "out", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(run({"info", "out/output.percept"}).out, AllOf(HasSubstr("0.4"), HasSubstr("events       1")));
  EXPECT_THAT(read_file(folder_ / "out/provenance.json"), HasSubstr("sub-01/func/sub-01_task-look_run-2_bold.nii"));

  write(stem.string() + "2_bold.json", R"({"RepetitionTime": 2.0})");
  const char* both = "RepetitionTime: expected 2.5 s, as the header of sub-01_task-look_run-2_bold.nii says";
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"run", "bids.toml"}, {"check", "toy"}, {"run", "bids.toml", "--dry-run"}}) {
    r = run(words);
    EXPECT_EQ(r.code, 3) << words[0];
    EXPECT_THAT(r.error, AllOf(HasSubstr("run-2_bold.json: "), HasSubstr(both), HasSubstr("found 2 s")));
  }
  r = run({"info", "toy"});
  EXPECT_EQ(r.code, 0);
  EXPECT_THAT(r.out, AllOf(HasSubstr("problems"), HasSubstr(both)));
}

TEST_F(Commands, DryRunWritesNothing) {
  const auto before = entries();
  const Result r = run({"run", "base.toml", "--dry-run"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(r.out, AllOf(HasSubstr("latency"), HasSubstr("kalman")));
  EXPECT_EQ(entries(), before);
  const Result search = run({"run", "base.toml", "--dry-run", "--set", "search.method=random", "--set",
                             "search.candidates=7", "--set", "search.kalman.regularisation={ from = 0.0, to = 1.0 }"});
  EXPECT_THAT(search.out, HasSubstr("note: search: 7 candidates (random), each on up to 5 inner folds"))
      << search.error;
}

TEST_F(Commands, DryRunReadsHeadsOfFilesOnly) {
  auto shape_of = [](const Value& graph, std::size_t node) {
    return graph.as_array().at(node).at("shape").as_string();
  };
  write(folder_ / "graph.toml", R"([[input.stream]]
name = "activity"
file = "x.csv"
header = false
rate_hz = 10
[[stage]]
use = "running_zscore"
time_constant_s = 5.0
[[stage]]
use = "lag"
lags = 2
[[stage]]
use = "zscore"
fit = "self"
)");
  // whole at first, so that what a dry run says can be compared
  const std::string whole = run({"run", "graph.toml", "--dry-run", "--json"}).out;
  EXPECT_EQ(run({"run", "graph.toml", "-o", "whole"}).code, 0);
  std::ofstream(folder_ / "x.csv", std::ios::app) << "these,are,no,numbers\n";
  Result r = run({"run", "graph.toml", "--dry-run", "--json"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_EQ(r.out, whole);
  const Value graph = r.json().at("graph");
  EXPECT_THAT(shape_of(graph, 0), HasSubstr("{4}"));
  EXPECT_THAT(shape_of(graph, 1), HasSubstr("{3, 4}"));
  EXPECT_EQ(shape_of(graph, 2), "?");
  EXPECT_EQ(graph.as_array().at(1).at("memory_frames").as_string(), "fading");
  r = run({"run", "graph.toml", "-o", "broken"});
  EXPECT_EQ(r.code, 3);
  EXPECT_THAT(r.error, HasSubstr("x.csv: line 201"));
  // a graph that cannot be is still refused
  EXPECT_EQ(run({"run", "graph.toml", "--dry-run", "--set", "lag.from=none"}).code, 3);
}

TEST_F(Commands, DryRunFetchesNothing) {
  const fs::path cache = folder_ / "cache";
  const testing::Environment no_mirror("PERCEPT_DATA_MIRROR", (folder_ / "nowhere").string());
  const testing::Environment empty_cache("XDG_CACHE_HOME", cache.string());
  const testing::Environment registry("PERCEPT_DATA_REGISTRY", (folder_ / "registry.toml").string());
  // the file could be had: that it is not there afterwards shows that nobody asked for it
  std::string sets;
  for (const char* file : {"x.csv", "z.csv"})
    sets += "  [[set.file]]\n  name = \"" + std::string(file) + "\"\n  mirror = \"" + file + "\"\n  url = \"file://" +
            (folder_ / file).string() + "\"\n  sha256 = \"" + sha256_file(folder_ / file) +
            "\"\n  bytes = " + std::to_string(fs::file_size(folder_ / file)) + "\n";
  write(folder_ / "registry.toml",
        "[[set]]\nname = \"far\"\ntitle = \"t\"\ndescription = \"d\"\nlicence = \"l\"\n"
        "citation = \"c\"\nsource = \"https://example.org\"\nloader = \"flint_run1\"\n" +
            sets);
  write(folder_ / "far.toml",
        "[input]\ndata = \"far\"\n[[stage]]\nuse = \"zscore\"\nfit = \"self\"\n[[stage]]\nuse = \"lag\"\n");
  Result r = run({"run", "far.toml", "--dry-run"});
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(r.out, AllOf(HasSubstr("lag"), HasSubstr("?"), HasSubstr("percept data fetch far")));
  EXPECT_FALSE(fs::exists(cache));
  r = run({"run", "far.toml", "--dry-run", "--json"});
  const Value shown = r.json();
  for (auto& node : shown.at("graph").as_array()) EXPECT_EQ(node.at("shape").as_string(), "?");
  // and it could have been
  EXPECT_EQ(run({"data", "fetch", "far"}).code, 0);
  EXPECT_TRUE(fs::exists(cache));
}

TEST_F(Commands, CompletionScriptsParse) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Result r = run({"completion", shell});
    EXPECT_EQ(r.code, 0);
    EXPECT_THAT(r.out, AllOf(HasSubstr("percept"), HasSubstr("rerun"), HasSubstr("kalman")));
    const auto file = folder_ / (std::string("completion.") + shell);
    write(file, r.out);
    // bash is everywhere; the others are asked where they are installed
    const std::string check = std::string(shell) == "bash"
                                  ? "bash -n "
                                  : "! command -v " + std::string(shell) + " >/dev/null || " + shell + " -n ";
    EXPECT_EQ(std::system((check + quoted(file.string())).c_str()), 0) << shell;
  }
  // and it completes
  const auto script = folder_ / "try.sh";
  write(script,
        "source completion.bash\nCOMP_WORDS=(percept re)\nCOMP_CWORD=1\n$(complete -p percept | sed 's/.*-F \\([^ "
        "]*\\).*/\\1/')\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n");
  EXPECT_EQ(std::system(("cd " + quoted(folder_.string()) + " && bash try.sh > completed").c_str()), 0);
  EXPECT_THAT(read_file(folder_ / "completed"),
              AllOf(HasSubstr("report"), HasSubstr("rerun"), ::testing::Not(HasSubstr("stages"))));
  EXPECT_EQ(run({"completion", "tcsh"}).code, 2);
}

}  // namespace
}  // namespace percept::cli_test
