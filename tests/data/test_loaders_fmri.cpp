#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <numeric>

#include "core/error.h"
#include "data/loaders.h"
#include "data/registry.h"
#include "io/csv.h"
#include "io/fmri.h"
#include "io/npy.h"
#include "tests/support/data.h"

namespace percept::data {
namespace {
namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Eigen::MatrixXd samples(const Recording& r, const char* name) { return r.stream(name, "test").matrix(); }

std::vector<std::int64_t> first_keys(std::int64_t n) {
  std::vector<std::int64_t> k(static_cast<std::size_t>(n));
  std::iota(k.begin(), k.end(), std::int64_t{0});
  return k;
}

double correlation(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  const Eigen::ArrayXXd x = a.array() - a.mean(), y = b.array() - b.mean();
  return (x * y).sum() / std::sqrt(x.square().sum() * y.square().sum());
}

TEST(LoadersFmri, VanGerven69) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "fmri/vangerven69/fmri_100x3092_f4.npy");
  const Recording r = load_data_set("vangerven69");
  const Stream &fmri = r.stream("fmri", "test"), &image = r.stream("image", "test"), &prior = r.stream("prior", "test");
  for (auto* s : {&fmri, &image}) {
    EXPECT_EQ(s->format.axis, Axis::item);
    EXPECT_EQ(s->keys, first_keys(100));
  }
  EXPECT_EQ(prior.keys, first_keys(2000));
  EXPECT_THAT(image.format.parts.at(0).shape, ElementsAre(28, 28));
  EXPECT_THAT(prior.format.parts.at(0).shape, ElementsAre(28, 28));
  EXPECT_EQ(image.format.parts[0].name, "image");

  const Eigen::MatrixXd activity = fmri.matrix(), shown = image.matrix(), others = prior.matrix();
  EXPECT_EQ(activity, io::read_npy(file));
  EXPECT_EQ(shown.maxCoeff(), 1);
  EXPECT_EQ(shown.minCoeff(), 0);
  for (Index k = 0; k < others.cols(); ++k)  // images of the prior were never shown
    for (Index i = 0; i < shown.cols(); ++i) ASSERT_NE(others.col(k), shown.col(i)) << k << " " << i;

  // the table says what the pictures show: each group is nearer to its own mean
  const auto& label = r.table("item")->find("label")->numbers;
  EXPECT_EQ(label.at(0), 6);
  EXPECT_EQ(label.at(99), 9);
  EXPECT_EQ(r.stream("label", "test").matrix()(0, 99), 1);
  const Eigen::VectorXd six = others.leftCols(1000).rowwise().mean(), nine = others.rightCols(1000).rowwise().mean();
  int agree = 0;
  for (Index k = 0; k < 100; ++k)
    agree +=
        (correlation(shown.col(k), six) > correlation(shown.col(k), nine)) == (label[static_cast<std::size_t>(k)] == 6);
  EXPECT_GE(agree, 98);
  // upright: the hole of a six is in its lower half, so that half has more ink
  const Eigen::Map<const Eigen::Matrix<double, 28, 28, Eigen::RowMajor>> mean_six(six.data());
  EXPECT_GT(mean_six.bottomRows(14).sum(), 1.2 * mean_six.topRows(14).sum());

  const auto& split = r.table("item")->find("split")->text;
  for (std::size_t k = 0; k < 100; ++k) EXPECT_EQ(split[k] == "test", (k >= 45 && k < 50) || k >= 95) << k;

  const auto& rows = fmri.format.parts[0].rows;
  ASSERT_EQ(rows.size(), 3092u);
  EXPECT_EQ(rows[0].name, "v0001");
  EXPECT_EQ(rows[3091].name, "v3092");
  std::map<std::string, int> in;
  for (auto& c : rows)
    for (std::size_t from = 0; from <= c.kind.size();) {
      const auto to = std::min(c.kind.find('+', from), c.kind.size());
      ++in[c.kind.substr(from, to - from)];
      from = to + 1;
    }
  const std::map<std::string, int> expected{{"lh.V1d", 314}, {"lh.V1v", 321}, {"lh.V2d", 225}, {"lh.V2v", 290},
                                            {"lh.V3d", 144}, {"lh.V3v", 198}, {"rh.V1d", 264}, {"rh.V1v", 330},
                                            {"rh.V2d", 43},  {"rh.V2v", 65},  {"rh.V3v", 2},   {"primary", 1057}};
  EXPECT_EQ(in, expected);
  const Table& voxel = *r.table("voxel");
  for (const char* axis : {"x", "y", "z"}) ASSERT_EQ(voxel.find(axis)->size(), 3092u);
  EXPECT_EQ(voxel.find("rh.V1v")->numbers.size(), 3092u);
  EXPECT_DOUBLE_EQ(rows[0].position->at(0), 0.002 * voxel.find("x")->numbers[0]);
  EXPECT_DOUBLE_EQ(rows[0].position->at(2), 0.002 * voxel.find("z")->numbers[0]);
  EXPECT_TRUE(fs::exists(r.meta.at("anatomy").as_string()));
  EXPECT_TRUE(fs::exists(r.meta.at("roi_labels").as_string()));
  EXPECT_THAT(r.warnings(), Contains(HasSubstr("redistribute")));
}

TEST(LoadersFmri, MiyawakiFigures) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "fmri/miyawaki2008_figures/fmri_120x967_f4.npy");
  const Recording r = load_data_set("miyawaki_figures");
  EXPECT_EQ(samples(r, "fmri"), io::read_npy(file));
  const Eigen::MatrixXd image = samples(r, "image");
  EXPECT_THAT(r.stream("image", "test").format.parts[0].shape, ElementsAre(10, 10));
  const Table& item = *r.table("item");
  const auto& stimulus = item.find("stimulus")->numbers;
  std::map<double, Index> first;  // one picture a stimulus, another for each other
  for (Index k = 0; k < 120; ++k) {
    const auto [at, fresh] = first.emplace(stimulus[static_cast<std::size_t>(k)], k);
    EXPECT_EQ(image.col(k), image.col(at->second)) << k;
    if (fresh) {
      for (auto& [other, j] : first) EXPECT_EQ(j != k, image.col(k) != image.col(j)) << other;
    }
  }
  EXPECT_EQ(first.size(), 20u);
  EXPECT_EQ(item.find("session")->numbers.front(), 21);
  EXPECT_EQ(item.find("session")->numbers.back(), 32);
  EXPECT_EQ(std::count(item.find("split")->text.begin(), item.find("split")->text.end(), "test"), 12);
  EXPECT_THAT(r.warnings(), Contains(HasSubstr("z-scored upstream over all 120 trials")));
  EXPECT_THAT(r.warnings(), Contains(HasSubstr("session of random images")));
}

TEST(LoadersFmri, HaxbyExcerpt) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "fmri/haxby2001_excerpt/haxby2001/sub001/BOLD/task001_run003/bold_events.tsv");
  const Recording r = load_data_set("haxby_excerpt");
  const Stream &fmri = r.stream("fmri", "test"), &category = r.stream("category", "test");
  EXPECT_EQ(fmri.frames(), 1452);
  EXPECT_EQ(fmri.format.size(), 530);
  for (const char* name : {"fmri", "motion", "category"}) {
    const Stream& s = r.stream(name, "test");
    EXPECT_EQ(s.format.rate_hz, 0.4) << s.name;
    EXPECT_EQ(s.format.start_s, 1.25) << s.name;
    EXPECT_EQ(s.frames(), 1452) << s.name;
  }
  // run 3 lies from volume 242 on: as its own file has it
  const Eigen::MatrixXd all = fmri.matrix();
  io::FmriOptions options;
  options.mask = testing::mirrored("fmri/haxby2001_excerpt/mask.nii.gz").value();
  EXPECT_EQ(io::open_fmri(file.parent_path() / "bold_1slice.nii.gz", options).stream.matrix(),
            all.middleCols(242, 121));
  const auto motion_file = file.parent_path() / "bold_moest.txt";
  std::ifstream motion(motion_file);
  double first = 0;
  motion >> first;
  EXPECT_EQ(samples(r, "motion")(0, 242), first);

  // events as the run's own table has them
  const Table events = io::read_csv_table(file, {.header = true, .delimiter = '\t'});
  ASSERT_EQ(r.events.size(), 96u);
  for (std::size_t k = 0; k < 8; ++k) {
    const Event& e = r.events[16 + k];
    EXPECT_EQ(e.onset_s, 242 * 2.5 + events.find("onset")->numbers[k]);
    EXPECT_EQ(e.duration_s, events.find("duration")->numbers[k]);
    EXPECT_EQ(e.label.text(), events.find("trial_type")->text[k]);
    EXPECT_EQ(e.value, 3);
  }
  const Table &volume = *r.table("volume"), &block = *r.table("block");
  const Eigen::MatrixXd level = category.matrix();
  const auto& levels = category.format.parts[0].levels;
  ASSERT_EQ(levels.size(), 9u);
  EXPECT_EQ(levels[0], "rest");
  std::size_t next = 0;
  for (std::int64_t k = 0; k < 1452; ++k) {
    const auto row = static_cast<std::size_t>(k);
    EXPECT_EQ(volume.find("run")->numbers[row], 1 + static_cast<double>(k / 121));
    EXPECT_EQ(levels[static_cast<std::size_t>(level(0, k))], volume.find("category")->text[row]);
    // the middle of each volume lies in a block exactly when it is not rest
    const double t = fmri.format.time_of(k);
    while (next < 96 && r.events[next].onset_s + r.events[next].duration_s < t) ++next;
    const bool inside = next < 96 && r.events[next].onset_s < t;
    EXPECT_EQ(inside ? r.events[next].label.text() : "rest", volume.find("category")->text[row]) << k;
  }
  EXPECT_EQ(block.find("category")->text.at(16), r.events[16].label.text());
  EXPECT_EQ(block.find("run")->numbers.at(16), 3);

  // a block is where its category is, and the blocks of a run know nothing of the other runs
  const Eigen::MatrixXd blocks = samples(r, "block"), moved = samples(r, "block_motion");
  ASSERT_EQ(blocks.cols(), 96);
  EXPECT_EQ(r.stream("block", "test").format.row_names(), fmri.format.row_names());
  for (const Index b : {0, 17, 95}) {
    const double run = block.find("run")->numbers[static_cast<std::size_t>(b)];
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(530), whole = mean;
    Index n = 0;
    for (Index k = 0; k < 1452; ++k) {
      const double t = fmri.format.time_of(k), onset = r.events[static_cast<std::size_t>(b)].onset_s;
      if (volume.find("run")->numbers[static_cast<std::size_t>(k)] == run) whole += all.col(k) / 121;
      if (t < onset || t > onset + 22.5) continue;
      mean += all.col(k);
      ++n;
    }
    ASSERT_EQ(n, 9);
    EXPECT_LT((blocks.col(b) - (mean / 9 - whole)).cwiseAbs().maxCoeff(), 1e-9);
  }
  EXPECT_EQ(moved.rows(), 6);
  EXPECT_EQ(moved.cols(), 96);
}

}  // namespace
}  // namespace percept::data
