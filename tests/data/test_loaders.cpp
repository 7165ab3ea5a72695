#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "data/fetch.h"
#include "data/loaders.h"
#include "data/registry.h"
#include "io/npy.h"
#include "tests/data/environment.h"
#include "tests/support/data.h"

namespace percept::data {
namespace {
namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Environment;
using ::testing::HasSubstr;
using testing::read_reference;
using ::testing::StartsWith;

Eigen::MatrixXd matrix(const Recording& r, const char* name) { return r.stream(name, "test").matrix(); }

void expect_digests(const Recording& r, const std::string& name) {
  for (auto& f : data_set(name).files) {
    const Value* digest = r.meta.at("input").find(name + "/" + f.name);
    ASSERT_NE(digest, nullptr) << f.name;
    EXPECT_EQ(digest->as_string(), f.sha256);
  }
  EXPECT_FALSE(r.meta.at("citation").as_string().empty());
}

TEST(Loaders, FlintRun1) {
  fs::path x, z;
  PERCEPT_NEED_DATA(x, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(z, "bci/flint_run1/z.csv");
  const Recording r = load_data_set("flint_run1");
  EXPECT_EQ(matrix(r, "activity"), read_reference(x).transpose());
  EXPECT_EQ(matrix(r, "kinematics"), read_reference(z).transpose());
  for (auto& s : r.streams) {
    EXPECT_EQ(s.frames(), 7792);
    EXPECT_EQ(s.format.rate_hz, 10);
    EXPECT_EQ(s.format.start_s, 0.05);
  }
  EXPECT_THAT(r.streams[1].format.row_names(), ElementsAre("vx", "vy"));
  EXPECT_THAT(r.warnings(), Contains(HasSubstr("fitted on the whole session upstream")));
  expect_digests(r, "flint_run1");
}

TEST(Loaders, Contdata95) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/contdata95/contdata95.mat");
  const Recording r = load_data_set("contdata95");
  const Eigen::MatrixXd counts = matrix(r, "activity"), hand = matrix(r, "kinematics");
  ASSERT_EQ(counts.rows(), 95);
  ASSERT_EQ(counts.cols(), 31413);
  EXPECT_EQ(counts.minCoeff(), 0);
  EXPECT_EQ(counts.maxCoeff(), 21);
  EXPECT_EQ(counts, counts.array().round().matrix());
  EXPECT_THAT(r.stream("kinematics", "test").format.row_names(), ElementsAre("px", "py", "vx", "vy"));

  const Table& trial = *r.table("trial");
  const auto& first = trial.find("first_row")->numbers;
  const auto& rows = trial.find("rows")->numbers;
  ASSERT_EQ(first.size(), 1456u);
  ASSERT_EQ(r.events.size(), 1456u);
  const auto& target = trial.find("target")->numbers;
  std::map<double, int> trials_to;
  for (const double t : target) ++trials_to[t];
  EXPECT_EQ(trials_to.size(), 8u);
  for (auto& [t, n] : trials_to) EXPECT_EQ(n, 182) << t;  // a balanced design
  double next = 0;
  for (std::size_t k = 0; k < first.size(); ++k) {
    EXPECT_EQ(first[k], next);
    EXPECT_EQ(r.events[k].onset_s, r.streams[0].format.time_of(static_cast<std::int64_t>(first[k])));
    EXPECT_EQ(r.events[k].value, target[k]);
    next += rows[k];
    // inside a trial the velocity is the step of the position
    for (auto t = static_cast<Index>(first[k]) + 1; t < static_cast<Index>(next); ++t)
      EXPECT_NEAR(hand(2, t), 10 * (hand(0, t) - hand(0, t - 1)), 1e-9);
  }
  EXPECT_EQ(next, 31413);
  expect_digests(r, "contdata95");
}

TEST(Loaders, DadChewie) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/dad_chewie/spikes_te.csv");
  const Recording r = load_data_set("dad_chewie");
  const Eigen::MatrixXd counts = matrix(r, "activity"), hand = matrix(r, "kinematics"), target = matrix(r, "target");
  ASSERT_EQ(counts.rows(), 71);
  ASSERT_EQ(counts.cols(), 3018);
  EXPECT_EQ(counts.rightCols(1818), read_reference(file).transpose());
  EXPECT_EQ(counts.leftCols(1200), read_reference(file.parent_path() / "spikes_tr.csv").transpose());
  EXPECT_EQ(hand.rightCols(1818), read_reference(file.parent_path() / "vel_te.csv").transpose());
  EXPECT_EQ(target.leftCols(1200), read_reference(file.parent_path() / "target_tr.csv").transpose());
  EXPECT_EQ(r.stream("target", "test").format.parts[0].levels.size(), 8u);
  EXPECT_THAT(r.table("segment")->find("segment")->text, ElementsAre("train", "test"));
  EXPECT_THAT(r.table("segment")->find("first_row")->numbers, ElementsAre(0, 1200));
  EXPECT_THAT(r.table("segment")->find("last_row")->numbers, ElementsAre(1199, 3017));
  EXPECT_EQ(r.streams[0].format.rate_hz, 50);
  std::vector<Event> trials;
  for (const Event& e : r.events) {
    if (e.label.text() == "trial") trials.push_back(e);
    if (e.label.text() == "test") {
      EXPECT_EQ(e.onset_s, r.streams[0].format.time_of(1200));
    }
  }
  // 38 trials and 22 rows of one, then 20 rows of one and 58 trials: the hand's velocity jumps at every start
  ASSERT_EQ(trials.size(), 98u);
  EXPECT_EQ(r.events.size(), 100u);
  for (std::size_t k = 0; k < trials.size(); ++k) {
    const Index row = k < 39 ? 31 * static_cast<Index>(k) : k == 39 ? 1200 : 1220 + 31 * (static_cast<Index>(k) - 40);
    EXPECT_EQ(trials[k].onset_s, r.streams[0].format.time_of(row)) << k;
    EXPECT_NEAR(trials[k].duration_s * 50, k == 38 ? 22 : k == 39 ? 20 : 31, 1e-9) << k;
    EXPECT_EQ(trials[k].value, target(0, row)) << k;
    EXPECT_TRUE(row == 0 || (hand.col(row) - hand.col(row - 1)).norm() > 4) << row;
  }
  expect_digests(r, "dad_chewie");
  EXPECT_EQ(load_data_set("dad_chewie", Value::object({{"row_s", 0.2}})).streams[0].format.rate_hz, 5);
}

TEST(Loaders, HcWmaze) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/hc_wmaze/spikes.csv");
  const Recording r = load_data_set("hc_wmaze");
  const Eigen::MatrixXd counts = matrix(r, "activity"), position = matrix(r, "position");
  ASSERT_EQ(counts.rows(), 24);
  ASSERT_EQ(counts.cols(), 43713);
  ASSERT_EQ(position.cols(), 43713);
  EXPECT_EQ(r.streams[0].format.start_s, 0.05);

  const Eigen::MatrixXd spikes = read_reference(file, 1);
  EXPECT_EQ(counts.sum(), static_cast<double>(spikes.rows()));
  const Table& units = *r.table("units");
  for (Index i = 0; i < 24; ++i)  // the table's own count, made by the source
    EXPECT_EQ(counts.row(i).sum(), units.find("nspikes")->numbers[static_cast<std::size_t>(i)]);
  EXPECT_EQ(r.streams[0].format.row_names().back(), "unit_24");
  EXPECT_EQ(
      counts(23, 644),
      ((spikes.col(0).array() == 24) && (spikes.col(1).array() >= 64.4) && (spikes.col(1).array() < 64.5)).count());
  // a bin of one second is ten of a tenth
  const Recording coarse = load_data_set("hc_wmaze", Value::object({{"bin_s", 1.0}}));
  const Eigen::MatrixXd seconds = matrix(coarse, "activity");
  ASSERT_EQ(seconds.cols(), 4371);
  for (Index b = 0; b < seconds.cols(); ++b)
    ASSERT_EQ(seconds.col(b), counts.middleCols(10 * b, 10).rowwise().sum().eval()) << b;

  // the median of each window, the slow way
  const Eigen::MatrixXd track = read_reference(file.parent_path() / "position.csv", 1);
  for (Index b : {0, 52, 55, 1000, 21364, 43712}) {
    std::vector<double> xs;
    for (Index k = 0; k < track.rows(); ++k)
      if (std::abs(track(k, 0) - (static_cast<double>(b) + 0.5) * 0.1) <= 0.125) xs.push_back(track(k, 1));
    if (xs.empty()) {
      EXPECT_TRUE(std::isnan(position(0, b))) << b;
      continue;
    }
    std::sort(xs.begin(), xs.end());
    EXPECT_EQ(position(0, b), 0.5 * (xs[(xs.size() - 1) / 2] + xs[xs.size() / 2])) << b;
  }
  EXPECT_TRUE(std::isnan(position(1, 0))) << "the camera starts after five seconds";
  EXPECT_FALSE(std::isnan(position(1, 54)));
  ASSERT_EQ(r.events.size(), 2u);
  EXPECT_EQ(r.events[1].onset_s, 2150);
  EXPECT_EQ(r.events[1].label.text(), "run");
  expect_digests(r, "hc_wmaze");
}

TEST(Loaders, OptionsAreChecked) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/hc_wmaze/spikes.csv");
  const auto refusal = [](const char* name, const Value& options) -> std::string {
    try {
      load_data_set(name, options);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(refusal("hc_wmaze", Value::object({{"bin", 1.0}})), HasSubstr("did you mean 'bin_s'?"));
  EXPECT_THAT(refusal("hc_wmaze", Value::object({{"bin_s", 0.0}})), StartsWith("input.bin_s = 0 s: expected"));
  EXPECT_THAT(refusal("flint_run1", Value::object({{"bin_s", 0.1}})), HasSubstr("bin_s"));
  EXPECT_THAT(refusal("flint", Value::table()), HasSubstr("expected one of flint_run1"));
  EXPECT_EQ(data_set_options("hc_wmaze").at(0).key, "bin_s");
}

TEST(Loaders, WithoutMirrorAConversionIsUnavailable) {
  Environment no_mirror("PERCEPT_DATA_MIRROR", "");
  Environment cache("XDG_CACHE_HOME", testing::temporary_folder());
  try {
    load_data_set("dad_chewie");
    FAIL();
  } catch (const Unavailable& e) {
    EXPECT_THAT(e.what(), HasSubstr("because the files are comma-separated copies of the six matrices"));
  }
}

// --- [input] --------------------------------------------------------------------------------------------------------

class Input : public ::testing::Test {
 protected:
  Recording load(const std::string& toml) const { return load_input(parse_toml(toml), folder); }
  std::string refused(const std::string& toml) const {
    try {
      load(toml);
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "one line";
      EXPECT_EQ(e.code(), Exit::bad_input);
      return e.what();
    }
    ADD_FAILURE() << "not refused: " << toml;
    return "";
  }
  void write(const std::string& name, const std::string& text) const { write_atomic(folder / name, text); }
  const fs::path folder = testing::temporary_folder();
};

const std::string kX =
    "[[stream]]\nname = \"activity\"\nfile = \"x.csv\"\nheader = false\nrate_hz = 10\nstart_s = 0.05\n";
const std::string kZ =
    "[[stream]]\nname = \"kinematics\"\nfile = \"z.csv\"\nheader = true\nrate_hz = 10\nstart_s = 0.05\n";

TEST_F(Input, StreamsTablesAndEvents) {
  write("x.csv", "1,2,3\n4,5,6\n");
  write("z.csv", "vx,vy\n0.1,0.2\n0.3,0.4\n");
  write("people.tsv", "id\tage\na\t30\nb\tn/a\n");
  write("events.tsv", "onset\tduration\ttrial_type\tvalue\n0.12\t0.5\tright\t2\n0.1\tn/a\tleft\tn/a\n");
  const Recording r = load("name = \"mine\"\n" + kX + kZ +
                           "[[table]]\nname = \"people\"\nfile = \"people.tsv\"\n[[events]]\nfile = \"events.tsv\"\n");
  EXPECT_EQ(r.name, "mine");
  EXPECT_EQ(matrix(r, "activity"), (Eigen::MatrixXd(3, 2) << 1, 4, 2, 5, 3, 6).finished());
  EXPECT_EQ(matrix(r, "kinematics"), (Eigen::MatrixXd(2, 2) << 0.1, 0.3, 0.2, 0.4).finished());
  EXPECT_EQ(r.streams[1].format.rate_hz, 10);
  EXPECT_EQ(r.streams[1].format.start_s, 0.05);
  EXPECT_THAT(r.streams[1].format.row_names(), ElementsAre("vx", "vy"));
  EXPECT_THAT(r.table("people")->find("id")->text, ElementsAre("a", "b"));
  EXPECT_TRUE(std::isnan(r.table("people")->find("age")->numbers[1]));
  ASSERT_EQ(r.events.size(), 2u);
  EXPECT_EQ(r.events[0].label.text(), "left");  // by rising onset
  EXPECT_EQ(r.events[0].duration_s, 0);
  EXPECT_TRUE(std::isnan(r.events[0].value));
  EXPECT_EQ(r.events[1].onset_s, 0.12);
  EXPECT_EQ(r.events[1].duration_s, 0.5);
  EXPECT_EQ(r.events[1].value, 2);
  EXPECT_EQ(r.events[1].id, 1);
  EXPECT_EQ(r.meta.at("input").at("x.csv").as_string(), sha256_file(folder / "x.csv"));
  EXPECT_EQ(r.meta.at("input").size(), 4u);
}

TEST_F(Input, OneFile) {
  write("x.csv", "1,2,3\n4,5,6\n");
  const Recording r = load("file = \"x.csv\"\nheader = false\nrate_hz = 100\n");
  ASSERT_EQ(r.streams.size(), 1u);
  EXPECT_EQ(r.streams[0].frames(), 2);
}

TEST_F(Input, SimulatorWithUsersEvents) {
  write("e.tsv", "onset\n0.5\n");
  const Recording r = load("simulate = \"reach\"\nchannels = 5\nduration_s = 4\n[[events]]\nfile = \"e.tsv\"\n");
  EXPECT_EQ(r.streams[0].format.size(), 5);
  EXPECT_EQ(r.events.size(), 5u);
  for (std::size_t i = 0; i < r.events.size(); ++i) EXPECT_EQ(r.events[i].id, static_cast<std::int64_t>(i));
}

TEST_F(Input, RegisteredSet) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/dad_chewie/spikes_te.csv");
  EXPECT_EQ(load("data = \"dad_chewie\"\nrow_s = 0.1\n").streams[0].format.rate_hz, 10);
}

TEST_F(Input, ExactlyOneKind) {
  EXPECT_THAT(refused(""), HasSubstr("expected one of data = \"NAME\", simulate"));
  EXPECT_THAT(refused("data = \"flint_run1\"\nsimulate = \"reach\"\n"), HasSubstr("expected only one of data"));
  EXPECT_THAT(refused("dataa = \"flint_run1\"\n"), HasSubstr("did you mean 'data'?"));
  EXPECT_THAT(refused("stream = []\n"), HasSubstr("at least one [[input.stream]]"));
  EXPECT_THAT(refused("stream = 3\n"), HasSubstr("input.stream (line 1) = 3: expected one or more [[input.stream]]"));
  EXPECT_THAT(refused("data = 3\n"), HasSubstr("input.data (line 1) = 3: expected a text"));
  EXPECT_THAT(refused("simulate = \"reach\"\nsede = 1\n"), HasSubstr("did you mean 'seed'?"));
}

TEST_F(Input, FewerImagesThanResponses) {
  const Eigen::MatrixXd voxels = Eigen::MatrixXd::Random(4, 6), images = Eigen::MatrixXd::Random(9, 5);
  io::write_npy(folder / "bold.npy", ConstFrames(voxels.data(), Scalar::f64, 4, 6, 4));
  io::write_npy(folder / "shown.npy", ConstFrames(images.data(), Scalar::f64, 9, 5, 9));
  const std::string error =
      refused("[[stream]]\nname = \"fmri\"\nfile = \"bold.npy\"\n[[stream]]\nname = \"image\"\nfile = \"shown.npy\"\n");
  EXPECT_THAT(error, HasSubstr("shown.npy: frames: expected 6, as stream 'fmri' has, found 5"));
}

TEST_F(Input, BadStreams) {
  write("x.csv", "1,2,3\n4,5,6\n");
  write("z.csv", "vx,vy\n0.1,0.2\n0.3,0.4\n0.5,0.6\n");
  const std::string rows = refused(kX + kZ);
  EXPECT_THAT(rows, HasSubstr("z.csv: frames: expected 2, as stream 'activity' has, found 3"));
  EXPECT_THAT(refused(kX + kX), HasSubstr("input.stream.name (line 8) = activity: expected a name that is not taken"));
  EXPECT_THAT(refused("nam = \"r\"\n" + kX), HasSubstr("did you mean 'name'?"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\n"), HasSubstr("input.stream.file"));
  EXPECT_THAT(refused("[[stream]]\nfile = \"x.csv\"\n"), HasSubstr("input.stream.name"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\nfile = \"y.csv\"\nheader = false\n"), HasSubstr("y.csv"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\nfile = \".\"\n"), HasSubstr("directory"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\nfile = \"x.csv\"\n"), HasSubstr("header"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\nfile = \"x.csv\"\nheader = false\nrate = 3\n"), HasSubstr("rate_hz"));
  EXPECT_THAT(refused("[[stream]]\nname = \"x\"\nfile = \"x.csv\"\nheader = false\nrate_hz = 0\n"),
              HasSubstr("rate_hz"));
}

TEST_F(Input, BadTablesAndEvents) {
  const std::string source = "simulate = \"reach\"\nduration_s = 1\n";
  write("e.tsv", "duration\n1\n");
  EXPECT_THAT(refused(source + "[[events]]\nfile = \"e.tsv\"\n"),
              HasSubstr("e.tsv: columns: expected a column 'onset'"));
  write("e.tsv", "onset\n1\nn/a\n");
  EXPECT_THAT(refused(source + "[[events]]\nfile = \"e.tsv\"\n"),
              HasSubstr("e.tsv: onset of row 2: expected a finite"));
  write("e.tsv", "onset\nsoon\n");
  EXPECT_THAT(refused(source + "[[events]]\nfile = \"e.tsv\"\n"), HasSubstr("e.tsv: onset: expected numbers"));
  EXPECT_THAT(refused(source + "[[events]]\nfile = \"e.tsv\"\nheader = true\n"), HasSubstr("header"));
  EXPECT_THAT(refused(source + "[[table]]\nname = \"units\"\nfile = \"e.tsv\"\n"), HasSubstr("not taken"));
  EXPECT_THAT(refused(source + "[[table]]\nname = \"t\"\nfile = \"e.tsv\"\ndelimiter = \"||\"\n"),
              HasSubstr("expected one character"));
  EXPECT_THAT(refused(source + "[[table]]\nname = \"t\"\nfile = \"e.tsv\"\nheader = 1\n"), HasSubstr("true or false"));
  EXPECT_THAT(refused(source + "[[table]]\nname = \"t\"\nfile = \"gone.tsv\"\n"), HasSubstr("gone.tsv"));
}

}  // namespace
}  // namespace percept::data
