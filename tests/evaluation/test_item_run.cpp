/// A run that decodes images: what it writes, and the controls of items.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "core/files.h"
#include "evaluation/brain_map.h"
#include "evaluation/gallery.h"
#include "evaluation/item_metrics.h"
#include "evaluation/run.h"
#include "evaluation/scoring.h"
#include "io/store.h"
#include "io/volume.h"
#include "numerics/random.h"
#include "percept/registry.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::evaluation::item_run_test {
namespace {

namespace fs = std::filesystem;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;
using testing::temporary_folder;

constexpr Index kItems = 60, kPixels = 12, kVoxels = 20;

Stream items(const std::string& name, MatrixXd m, std::vector<Index> shape) {
  Stream s;
  s.name = name;
  s.format = item_format(std::move(shape), Scalar::f64, name);
  for (Index k = 0; k < m.cols(); ++k) s.keys.push_back(k);
  s.samples = std::make_shared<MemorySource>(std::move(m));
  return s;
}

/// Images of two classes, the first half one and the second the other, seen by noisy voxels.
Recording brain() {
  const KeyedRandom random(1, "item run");
  MatrixXd image(kPixels, kItems), voxels(kVoxels, kItems), map(kVoxels, kPixels);
  for (Index i = 0; i < kVoxels; ++i)
    for (Index j = 0; j < kPixels; ++j) map(i, j) = random.normal(1000 + i, static_cast<std::uint64_t>(j));
  for (Index k = 0; k < kItems; ++k)
    for (Index j = 0; j < kPixels; ++j)
      image(j, k) = std::clamp(0.5 + ((j < kPixels / 2) == (k < kItems / 2) ? 0.25 : -0.25) +
                                   0.15 * random.normal(k, static_cast<std::uint64_t>(j)),
                               0.0, 1.0);
  for (Index k = 0; k < kItems; ++k)
    for (Index i = 0; i < kVoxels; ++i)
      voxels(i, k) = map.row(i).dot(image.col(k)) + 0.5 * random.normal(k, static_cast<std::uint64_t>(100 + i));
  Recording r;
  r.name = "brain";
  r.streams = {items("voxels", voxels, {kVoxels}), items("image", image, {3, 4})};
  Column label{.name = "label", .numbers = {}, .text = {}};
  Column session{.name = "session", .numbers = {}, .text = {}};
  for (Index k = 0; k < kItems; ++k) label.text.push_back(k < kItems / 2 ? "left" : "right");
  for (Index k = 0; k < kItems; ++k) session.numbers.push_back(static_cast<double>(k / 20));
  r.tables = {{"item", {label, session}}};
  return r;
}

const std::string kPipeline = R"([input]
data = "none"
[[stage]]
use = "gaussian_posterior"
target = "image"
alpha = [1.0]
[[split]]
use = "kfold"
folds = 6
assign = "interleaved"
stratify = "item.label"
[[score]]
metrics = ["pcc", "mse", "identification", "rmse"]
category = "item.label"
bootstrap = 50
permutations = 50
shuffles = 2
[run]
precision = "f64"
seed = 1
)";

class ItemRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new fs::path(temporary_folder() / "run");
    RunRequest request{parse_pipeline(parse_toml(kPipeline), "test.toml", builtin_registry()), brain(), {}, *folder_};
    result_ = new Value(run_pipeline(builtin_registry(), request).result);
  }
  static void TearDownTestSuite() {
    delete folder_;
    delete result_;
  }
  static double of(const Value& v, const char* metric) { return v.at(metric).as_number(); }
  static fs::path* folder_;
  static Value* result_;
};
fs::path* ItemRun::folder_ = nullptr;
Value* ItemRun::result_ = nullptr;

// what is decoded is compared with each voxel where the recording says where its voxels are
TEST(BrainOfARun, IsInItsFolderAndInTheGallery) {
  const auto folder = temporary_folder();
  io::Volume anatomy;
  anatomy.grid.size = {kVoxels, 2, 1};
  anatomy.values = VectorXd::Ones(2 * kVoxels);
  io::write_volume(folder / "head.nii.gz", anatomy);
  Recording r = brain();
  r.meta["anatomy"] = (folder / "head.nii.gz").string();
  Table voxel{"voxel", {{"x", {}, {}}, {"y", {}, {}}, {"z", {}, {}}}};
  for (Index v = 0; v < kVoxels; ++v) {
    voxel.columns[0].numbers.push_back(static_cast<double>(v));
    voxel.columns[1].numbers.push_back(1);
    voxel.columns[2].numbers.push_back(0);
  }
  r.tables.push_back(voxel);
  const MatrixXd voxels = r.find("voxels")->matrix();
  RunRequest request{parse_pipeline(parse_toml(kPipeline), "test.toml", builtin_registry()), r, {}, folder / "mapped"};
  run_pipeline(builtin_registry(), request);

  const MatrixXd decoded = io::open_store(folder / "mapped/predictions.percept").find("decoded")->matrix();
  const auto expected = shared_variance(voxels, decoded, 1);
  const io::Volume map = io::read_volume(folder / "mapped/brain/map_1.nii.gz");
  EXPECT_LT((map.values.tail(kVoxels) - expected.share).cwiseAbs().maxCoeff(), 1e-6);  // floats in the file
  EXPECT_EQ(map.values.head(kVoxels), VectorXd::Zero(kVoxels));

  const Value gallery = gallery_of(folder / "mapped");
  const Value& overlay = gallery.at("brain").at("overlays").as_array().at(0);
  EXPECT_EQ(gallery.at("brain").at("anatomy").at("file").as_string(), "head.nii.gz");
  EXPECT_EQ(overlay.at("file").as_string(), "map_1.nii.gz");
  EXPECT_EQ(overlay.at("least").as_number(), expected.chance);
  EXPECT_EQ(overlay.at("most").as_number(), expected.share.maxCoeff());
  EXPECT_THAT(overlay.at("doc").as_string(), HasSubstr("over 60 test images"));
}

TEST_F(ItemRun, EveryItemIsThereOnceInTheOrderOfItsKey) {
  const Recording p = io::open_store(*folder_ / "predictions.percept");
  const Recording r = brain();
  for (const char* name : {"truth", "decoded", "frame"}) {
    ASSERT_TRUE(p.find(name)) << name;
    ASSERT_EQ(p.find(name)->frames(), kItems);
    for (Index k = 0; k < kItems; ++k) ASSERT_EQ(p.find(name)->keys[static_cast<std::size_t>(k)], k);
  }
  EXPECT_EQ(p.find("truth")->matrix(), r.find("image")->matrix());
  EXPECT_EQ(p.find("truth")->format.parts.at(0).shape, (std::vector<Index>{3, 4}));
  EXPECT_EQ(p.find("decoded")->format.parts.at(0).shape, (std::vector<Index>{3, 4}));
  const auto& frame = *p.find("frame");
  ASSERT_EQ(frame.format.parts.size(), 2u);
  EXPECT_EQ(frame.format.parts[1].name, "sd");
  EXPECT_EQ(frame.matrix().topRows(kPixels), p.find("decoded")->matrix());
  EXPECT_EQ(p.table("item")->find("label")->text.at(59), "right");
}

TEST_F(ItemRun, ScoresComeWithTheirSpreadAndOneValueAnItem) {
  const Recording p = io::open_store(*folder_ / "predictions.percept");
  const MatrixXd truth = p.find("truth")->matrix(), decoded = p.find("decoded")->matrix();
  const auto pcc = score("pcc", truth, decoded);
  EXPECT_EQ(of(result_->at("scores"), "pcc"), pcc.values[0]);
  EXPECT_EQ(of(result_->at("sd"), "pcc"), pcc.sd());
  EXPECT_FALSE(result_->at("sd").contains("rmse"));
  const Value& values = result_->at("items").at("values");
  for (const char* measure : {"pcc", "mse", "identification", "identification_rank", "spread"})
    EXPECT_EQ(values.at(measure).size(), static_cast<std::size_t>(kItems)) << measure;
  EXPECT_EQ(values.at("pcc").as_array()[7].as_number(), pcc.items[7]);
  EXPECT_EQ(result_->at("items").at("keys").size(), static_cast<std::size_t>(kItems));
  EXPECT_TRUE(result_->at("trust").at("spread").contains("rank_correlation"));
  EXPECT_LT(result_->at("controls").at("permutation").at("p").as_number(), 0.05);
  const Value& interval = result_->at("intervals").at("pcc");
  EXPECT_LT(interval.as_array()[0].as_number(), pcc.values[0]);
  EXPECT_GT(interval.as_array()[1].as_number(), pcc.values[0]);
}

TEST_F(ItemRun, ControlsAreWhatTheirNamesSay) {
  const MatrixXd image = brain().find("image")->matrix();
  // the folds again, on paper: every sixth of each half
  MatrixXd means(kPixels, kItems), class_means(kPixels, kItems);
  for (Index k = 0; k < kItems; ++k) {
    const Index half = kItems / 2, fold = k % half % 6;
    VectorXd sum = VectorXd::Zero(kPixels), same = sum;
    double n = 0, n_same = 0;
    for (Index j = 0; j < kItems; ++j) {
      if (j % half % 6 == fold) continue;
      sum += image.col(j), ++n;
      if ((j < half) == (k < half)) same += image.col(j), ++n_same;
    }
    means.col(k) = sum / n;
    class_means.col(k) = same / n_same;
  }
  const Value& controls = result_->at("controls");
  for (const char* metric : {"pcc", "mse", "identification", "rmse"}) {
    EXPECT_NEAR(of(controls.at("mean"), metric), score(metric, image, means).headline(), 1e-12) << metric;
    EXPECT_NEAR(of(controls.at("class"), metric), score(metric, image, class_means).headline(), 1e-12) << metric;
    // a linear decoder gives the mean of its targets for the mean of its input
    EXPECT_NEAR(of(controls.at("no_brain"), metric), score(metric, image, means).headline(), 1e-9) << metric;
  }
  EXPECT_LT(of(controls.at("class"), "mse"), of(controls.at("mean"), "mse"));
  EXPECT_LT(of(result_->at("scores"), "mse"), of(controls.at("class"), "mse"));
  // paired at random: no better than the mean, and worse than what the true class alone would give
  EXPECT_GT(of(controls.at("shuffled"), "mse"), of(controls.at("mean"), "mse"));
  EXPECT_LT(of(controls.at("shuffled"), "identification"), 0.65);
}

TEST_F(ItemRun, ReportAndGalleryShowTheImages) {
  const std::string page = read_file(*folder_ / "report.html");
  EXPECT_THAT(page, HasSubstr("id=\"images-0\""));
  EXPECT_THAT(page, HasSubstr("id=\"trust-0\""));
  EXPECT_THAT(page, HasSubstr("± "));
  EXPECT_THAT(page, HasSubstr("without the brain"));
  const Value gallery = gallery_of(*folder_);
  EXPECT_EQ(gallery.at("items").size(), static_cast<std::size_t>(kItems));
  for (const char* measure : {"pcc", "mse", "identification", "identification_rank", "spread"})
    EXPECT_TRUE(gallery.at("measures").contains(measure)) << measure;
  EXPECT_TRUE(gallery.at("reconstructions").as_array().at(0).contains("sd"));
}

TEST_F(ItemRun, AClockHasItsOwnControlsAndItemsTheirs) {
  ScoreSpec s;
  EXPECT_THAT(controls_of(s, Axis::time), ::testing::ElementsAre("time", "trial", "past", "shuffled"));
  EXPECT_THAT(controls_of(s, Axis::item), ::testing::ElementsAre("mean", "no_brain", "shuffled"));
  s.category = "item.label";
  EXPECT_THAT(controls_of(s, Axis::item), ::testing::ElementsAre("mean", "class", "no_brain", "shuffled"));
  s.confounds = {"time"};
  EXPECT_THAT(controls_of(s, Axis::item), ::testing::ElementsAre("time"));
}

TEST_F(ItemRun, InnerFoldsOfAFitterKeepGroupsTogether) {
  // each item is a group of its own, or the level of the split's column
  auto groups = [](const std::string& split) {
    std::string text = kPipeline;
    const auto first = text.find("use = \"kfold\""), end = text.find("[[score]]");
    text.replace(first, end - first, split + "\n");
    const Experiment e(builtin_registry(), parse_pipeline(parse_toml(text), "test.toml", builtin_registry()), brain(),
                       {});
    const auto fold = make_folds(e.pipeline().splits.at(0), e.split_context()).at(0);
    return e.groups_of(fold.inner_split);
  };
  EXPECT_EQ(groups("use = \"kfold\"\nfolds = 6").at(17), 17);
  EXPECT_EQ(groups("use = \"column\"\ncolumn = \"item.session\"").at(17), 0);
  EXPECT_EQ(groups("use = \"column\"\ncolumn = \"item.session\"").at(59), 2);
  EXPECT_EQ(groups("use = \"column\"\ncolumn = \"item.label\"").at(59), 59) << "trains on one level";
}

}  // namespace
}  // namespace percept::evaluation::item_run_test
