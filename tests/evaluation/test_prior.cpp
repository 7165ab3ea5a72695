/// Priors: fitted on images alone, once, and never on one that is to be decoded.
#include "evaluation/prior.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/describe.h"
#include "evaluation/experiment.h"
#include "evaluation/run.h"
#include "numerics/random.h"
#include "percept/registry.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::evaluation::prior_test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::temporary_folder;

constexpr Index kPixels = 6, kItems = 40;

// --- a prior that counts its fits, and a stage that keeps what it was given -----------------------------------------

int fits = 0;
int stop_at = -1;  ///< step at which a fit is interrupted

class Same final : public Typed<Same> {
 public:
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> x, Output& o, FrameSpan<T> y) noexcept {
    y.slice(0, x.frames).eigen() = x.eigen();
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return x.frames;
  }
  void reset() noexcept override {}
};

/// Sums its images in three steps, each left behind in the checkpoint.
class SumFitter final : public Fitter {
 public:
  explicit SumFitter(double times) : times_(times) {}
  Model fit(const Data& data, Context& context) override {
    ++fits;
    const TrainingMatrix t = data.gather();
    context.counter("images_seen").add(data.frames());
    Model m;
    int first = 0;
    Eigen::VectorXd sum = Eigen::VectorXd::Zero(t.x.rows());
    const auto left = context.checkpoint / "left";
    if (!context.checkpoint.empty() && fs::exists(left)) {
      const Model half = Model::load(left);
      first = static_cast<int>(half.number("step"));
      sum = half.vector("sum");
    }
    for (int step = first; step < 3; ++step) {
      if (step == stop_at) throw Interrupted();
      for (Index k = step; k < t.x.cols(); k += 3) sum += times_ * t.x.col(k);
      Model half;
      half.set("step", step + 1);
      half.set("sum", Eigen::MatrixXd(sum));
      if (!context.checkpoint.empty()) half.save(left);
    }
    m.set("sum", Eigen::MatrixXd(sum));
    m.set("labels", t.y.rows() ? Eigen::MatrixXd(t.y.transpose()) : Eigen::MatrixXd(0, 1));
    m.meta["started_at"] = first;
    return m;
  }

 private:
  double times_;
};
class KeepFitter final : public Fitter {
 public:
  Model fit(const Data&, Context& context) override {
    Model m;
    Value names = Value::array();
    for (auto& p : context.priors) {
      names.push_back(p.name);
      m.set(p.name, Eigen::MatrixXd(p.model->vector("sum")));
    }
    m.meta["priors"] = names;
    return m;
  }
};

const Registry& stages() {
  static const Registry all = [] {
    Registry r = builtin_registry();
    StageInfo info;
    info.name = "sum";
    info.folder = "tests";
    info.doc = "The sum of its images.";
    info.trained = true;
    ParamInfo times{"times", "number", "", "Factor.", Value(1.0), -10, 10, {}};
    info.params = {times};
    info.make = [](const Value&, const Model*, const std::string&) -> std::unique_ptr<Stage> {
      return std::make_unique<Same>();
    };
    info.make_fitter = [](const Value& params, const std::string&) -> std::unique_ptr<Fitter> {
      return std::make_unique<SumFitter>(params.get("times", 1.0));
    };
    info.samples = [] { return std::vector<Sample>(1); };
    r.add(info);
    info.name = "labelled_sum";
    info.needs_target = true;
    r.add(info);
    info.name = "keep";
    info.params.clear();
    info.needs_target = false;
    info.priors = {"sum", "labelled_sum"};
    info.make_fitter = [](const Value&, const std::string&) -> std::unique_ptr<Fitter> {
      return std::make_unique<KeepFitter>();
    };
    r.add(info);
    return r;
  }();
  return all;
}

Eigen::MatrixXd pictures(Index n, const char* name) {
  const KeyedRandom random(1, name);
  Eigen::MatrixXd m(kPixels, n);
  for (Index k = 0; k < n; ++k)
    for (Index i = 0; i < kPixels; ++i) m(i, k) = random.uniform(k, static_cast<std::uint64_t>(i));
  return m;
}

Stream items(const std::string& name, Eigen::MatrixXd m, std::vector<Index> shape) {
  Stream s;
  s.name = name;
  s.format = item_format(std::move(shape), Scalar::f64, name);
  for (Index k = 0; k < m.cols(); ++k) s.keys.push_back(k);
  s.samples = std::make_shared<MemorySource>(std::move(m));
  return s;
}

Recording brain() {
  Recording r;
  r.name = "brain";
  const Eigen::MatrixXd shown = pictures(kItems, "shown");
  r.streams = {items("voxels", 3 * shown.array() + 1, {kPixels}), items("image", shown, {2, 3})};
  return r;
}

Recording images(const Eigen::MatrixXd& m, const std::vector<std::string>& labels = {}) {
  Recording r;
  r.name = "images";
  r.streams = {items("images", m, {2, 3})};
  r.meta["sources"] = Value::array({Value::object({{"name", "first.image"}, {"images", 2}}),
                                    Value::object({{"name", "second.image"}, {"images", m.cols() - 2}})});
  r.meta["input"] = Value::object({{"first/x.npy", "0123"}});
  r.meta["warnings"] = Value::array({"the images were smoothed upstream"});
  if (!labels.empty()) r.tables = {{"images", {Column{.name = "label", .numbers = {}, .text = labels}}}};
  return r;
}
Recording images() { return images(pictures(9, "others")); }

const std::string kPipeline = R"([input]
data = "none"
[[prior]]
name = "lib"
images = ["first.image", "second.image"]
use = "sum"
times = 2.0
[[stage]]
use = "keep"
prior = "lib"
[[stage]]
use = "ridge"
target = "image"
alpha = [1.0]
covariance = "none"
[[split]]
use = "kfold"
folds = 2
[[score]]
metrics = ["rmse"]
bootstrap = 0
permutations = 0
shuffles = 1
[run]
precision = "f64"
)";

Pipeline parsed(const std::string& text = kPipeline) { return parse_pipeline(parse_toml(text), "test.toml", stages()); }
std::string with(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), by);
}

Priors fit(const Pipeline& p, const PriorCache& cache = {}, const Recording& given = images(),
           Counters* counters = nullptr) {
  Context base;
  base.seed = p.seed;
  base.counters = counters;
  return fit_priors(stages(), p, brain(), {given}, base, cache);
}

Model model_of(const fs::path& run, const std::string& fold, const std::string& node) {
  return Model::load(run / "models/official" / fold / node);
}

// --- the tests ------------------------------------------------------------------------------------------------------

TEST(Prior, IsFittedOnItsImagesAloneAndGivenToTheStagesThatNameIt) {
  fits = 0;
  const auto folder = temporary_folder() / "run";
  RunRequest request{parsed(), brain(), {}, folder};
  request.priors = {images()};
  const auto outcome = run_pipeline(stages(), request);
  EXPECT_EQ(fits, 1) << "two folds and the shuffled control use one fit";
  const Eigen::VectorXd sum = 2 * pictures(9, "others").rowwise().sum();
  for (const char* fold : {"fold_1", "fold_2"}) {
    const Model m = model_of(folder, fold, "keep");
    EXPECT_LT((m.vector("lib") - sum).cwiseAbs().maxCoeff(), 1e-12) << fold;
    EXPECT_EQ(to_json(m.meta.at("priors")), "[\"lib\"]");
  }
  EXPECT_THAT(to_json(outcome.result.at("warnings")), HasSubstr("smoothed upstream"));
  const Value& told = outcome.result.at("priors").as_array().at(0);
  EXPECT_EQ(told.at("images").as_integer(), 9);
  EXPECT_EQ(told.at("digest").as_string().size(), 64u);
  const Value origin = read_json(folder / "provenance.json").at("priors").as_array().at(0);
  EXPECT_EQ(to_json(origin.at("inputs")), "{\"first/x.npy\":\"0123\"}");
  EXPECT_EQ(origin.at("use").as_string(), "sum");
  const std::string page = read_file(folder / "report.html");
  EXPECT_THAT(page, AllOf(HasSubstr("id=\"priors\""), HasSubstr("first.image (2), second.image (7)")));
  const Value graph = describe_graph(stages(), request.pipeline, request.recording);
  EXPECT_EQ(graph.as_array().at(0).at("fit").as_string(), "train, prior lib");
}

TEST(Prior, IsAStagesModelWhereTheStageSaysSo) {
  fits = 0;
  const auto p = parsed(with(kPipeline, "use = \"keep\"\nprior = \"lib\"", "use = \"sum\"\nmodel = \"lib\""));
  const auto folder = temporary_folder() / "run";
  RunRequest request{p, brain(), {}, folder};
  request.priors = {images()};
  const auto outcome = run_pipeline(stages(), request);
  EXPECT_EQ(fits, 1);
  EXPECT_FALSE(fs::exists(folder / "models/official/fold_1/sum")) << "nothing was fitted in the fold";
  const Value& first = outcome.result.at("models").as_array().at(0);
  EXPECT_EQ(first.at("node").as_string(), "sum");
  EXPECT_EQ(first.at("digest"), outcome.result.at("priors").as_array().at(0).at("digest"));
}

TEST(Prior, LabelsAreItsTargetWhereItsStageNeedsOne) {
  const auto p = parsed(with(kPipeline, "use = \"sum\"", "use = \"labelled_sum\""));
  const std::vector<std::string> labels{"b", "a", "", "c", "a", "b", "b", "c", "a"};
  const auto labelled = fit(p, {}, images(pictures(9, "others"), labels));
  const Eigen::VectorXd codes = labelled.at(0).model->vector("labels");
  EXPECT_EQ(codes(0), 1);
  EXPECT_EQ(codes(1), 0);
  EXPECT_TRUE(std::isnan(codes(2)));
  EXPECT_EQ(codes(3), 2);
  Recording digits = images(pictures(4, "others"));
  digits.tables = {{"images", {Column{.name = "label", .numbers = {9, 6, std::nan(""), 9}, .text = {}}}}};
  const Eigen::VectorXd numbers = fit(p, {}, digits).at(0).model->vector("labels");
  EXPECT_EQ(numbers(0), 1) << "categories, also where they are numbers";
  EXPECT_EQ(numbers(1), 0);
  EXPECT_TRUE(std::isnan(numbers(2)));
  EXPECT_EQ(numbers(3), 1);
  EXPECT_THAT(message_of<ConfigError>([&] { fit(p); }),
              HasSubstr("prior lib.label = label: expected a column of labels beside the images: 'labelled_sum' learns "
                        "to tell them apart"));
}

TEST(Prior, AnImageThatIsToBeDecodedIsRefused) {
  const Eigen::MatrixXd shown = brain().find("image")->matrix();
  Eigen::MatrixXd m = pictures(9, "others");
  // also brighter, or in other units
  for (const auto& [factor, offset] : {std::pair{1.0, 0.0}, {255.0, 0.0}, {0.5, 0.25}}) {
    m.col(4) = factor * shown.col(17).array() + offset;
    EXPECT_THAT(message_of<DataError>([&] { fit(parsed(), {}, images(m)); }),
                HasSubstr("prior lib: image 3 of second.image: expected an image that is not to be decoded (a prior "
                          "that knows it would leak), found item 17 of the target 'image'"));
  }
  m.col(4) = shown.col(17);
  m(3, 4) += 0.01;
  EXPECT_EQ(fit(parsed(), {}, images(m)).size(), 1u) << "another image";
  m.col(4).setConstant(0.5);
  EXPECT_EQ(fit(parsed(), {}, images(m)).size(), 1u) << "a blank image tells nothing";
}

TEST(Prior, IsKeptFromRunToRun) {
  fits = 0;
  const PriorCache cache{temporary_folder() / "priors", false}, fresh{cache.folder, true};
  Counters cold, warm;
  const auto first = fit(parsed(), cache, images(), &cold), second = fit(parsed(), cache, images(), &warm);
  EXPECT_EQ(fits, 1);
  EXPECT_EQ(testing::model_difference(*first[0].model, *second[0].model), "");
  EXPECT_EQ(first[0].digest, second[0].digest);
  EXPECT_EQ(first[0].images, second[0].images);
  EXPECT_EQ(cold.nonzero(), warm.nonzero()) << "what was counted in the fit is part of it";
  EXPECT_EQ(cold.nonzero().at(0).first, "lib.images_seen");
  fit(parsed(), fresh);
  EXPECT_EQ(fits, 2) << "--fresh";
  fit(parsed(with(kPipeline, "times = 2.0\n", "times = 2\n")), cache);
  EXPECT_EQ(fits, 2) << "the same said otherwise";
  fit(parsed(with(kPipeline, "times = 2.0\n", "")), cache);
  EXPECT_EQ(fits, 3) << "another parameter";
  fit(parsed(with(kPipeline, "precision = \"f64\"", "seed = 5")), cache);
  EXPECT_EQ(fits, 4) << "another seed";
  fit(parsed(), cache, images(pictures(9, "yet others")));
  EXPECT_EQ(fits, 5) << "other images";
  fit(parsed(), cache);
  EXPECT_EQ(fits, 5);
  // whatever is damaged is made again
  for (auto& entry : fs::recursive_directory_iterator(cache.folder))
    if (entry.path().filename() == "weights.safetensors") {
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(-1, std::ios::end);
      file.put('\x7f');
    }
  EXPECT_EQ(testing::model_difference(*fit(parsed(), cache)[0].model, *first[0].model), "");
  EXPECT_EQ(fits, 6);
}

TEST(Prior, AnInterruptedTrainingGoesOnFromItsCheckpoint) {
  fits = 0;
  const PriorCache cache{temporary_folder() / "priors", false};
  stop_at = 2;
  EXPECT_THROW(fit(parsed(), cache), Interrupted);
  stop_at = -1;
  const auto resumed = fit(parsed(), cache), whole = fit(parsed());
  EXPECT_EQ(fits, 3);
  EXPECT_EQ(resumed[0].model->meta.at("started_at").as_integer(), 2);
  EXPECT_EQ(resumed[0].model->vector("sum"), whole[0].model->vector("sum"));
  for (auto& entry : fs::directory_iterator(cache.folder))
    EXPECT_NE(entry.path().extension(), ".checkpoint") << "done with";
  stop_at = 2;
  EXPECT_THROW(fit(parsed(with(kPipeline, "times = 2.0", "times = 3.0")), cache), Interrupted);
  stop_at = -1;
  const auto anew = fit(parsed(with(kPipeline, "times = 2.0", "times = 3.0")), {cache.folder, true});
  EXPECT_EQ(anew[0].model->meta.at("started_at").as_integer(), 0) << "--fresh starts over";
}

TEST(Prior, OneThatNothingUsesIsNotFitted) {
  fits = 0;
  EXPECT_TRUE(fit(parsed(with(kPipeline, "prior = \"lib\"\n", ""))).empty());
  EXPECT_EQ(fits, 0);
}

TEST(Prior, AFitIsMadeAgainWhenItsPriorIsAnother) {
  const auto p = parsed();
  const auto cache = std::make_shared<WorkCache>();
  auto digest = [&](const Recording& given) {
    EngineOptions options;
    options.priors = std::make_shared<Priors>(fit(p, {}, given));
    return Experiment(stages(), p, brain(), options, cache).fit({{0, kItems - 1}}).models.at(0).digest;
  };
  const auto first = digest(images());
  EXPECT_NE(first, digest(images(pictures(9, "yet others"))));
  EXPECT_EQ(first, digest(images()));
  EXPECT_THAT(message_of<Error>([&] {
                Experiment(stages(), p, brain(), {}).fit({{0, kItems - 1}});
              }),
              HasSubstr("the prior 'lib' is not fitted"));
}

// --- what goes through a prior --------------------------------------------------------------------------------------

const std::string kThrough = R"([input]
data = "none"
[[prior]]
name = "parts"
images = "first.image"
use = "pca"
components = 2
[[prior]]
name = "lib"
images = "first.image"
through = "parts"
target_through = "parts.pca"
use = "labelled_sum"
[[stage]]
use = "keep"
prior = "lib"
[[stage]]
use = "ridge"
target = { from = "image", through = "parts" }
alpha = [1e-6]
covariance = "none"
[[split]]
use = "kfold"
folds = 2
[[score]]
metrics = ["rmse", "r2"]
bootstrap = 0
permutations = 0
shuffles = 0
[run]
precision = "f64"
)";

/// Of the first prior.
Eigen::MatrixXd components(const FittedPrior& parts, const Eigen::MatrixXd& m) {
  const StageInfo& pca = builtin_registry().at("pca", "test");
  const auto stage = pca.make(Value::object({{"components", 2}}), parts.model.get(), "parts");
  return run_stage(*stage, testing::StageInput{item_format({2, 3}), m}).matrix();
}

TEST(Prior, LearnsFromWhatAnotherMakesOfItsImages) {
  const auto p = parsed(kThrough);
  Context base;
  const auto all = fit_priors(stages(), p, brain(), {images(), images()}, base, {});
  ASSERT_EQ(all.size(), 2u);
  const Eigen::MatrixXd made = components(all[0], pictures(9, "others"));
  EXPECT_LT((all[1].model->vector("sum") - made.rowwise().sum()).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((all[1].model->matrix("labels") - made.transpose()).cwiseAbs().maxCoeff(), 1e-12);

  // another first prior is another second one, also from the cache
  const PriorCache cache{temporary_folder() / "priors", false};
  fits = 0;
  fit_priors(stages(), p, brain(), {images(), images()}, base, cache);
  fit_priors(stages(), p, brain(), {images(), images()}, base, cache);
  EXPECT_EQ(fits, 1);
  fit_priors(stages(), p, brain(), {images(pictures(9, "yet others")), images()}, base, cache);
  EXPECT_EQ(fits, 2);
}

TEST(Prior, ATargetIsDecodedAsWhatAPriorMakesOfIt) {
  RunRequest request{parsed(kThrough), brain(), {}, temporary_folder() / "run"};
  request.priors = {images(), images()};
  const auto outcome = run_pipeline(stages(), request);
  // voxels are linear in the image, so its components are decoded but for the rounding
  EXPECT_LT(outcome.result.at("scores").at("rmse").as_number(), 1e-5);
  ASSERT_EQ(outcome.result.at("scores").at("r2").as_array().size(), 2u) << "of each component";

  const auto priors = std::make_shared<Priors>(fit_priors(stages(), request.pipeline, brain(), request.priors, {}, {}));
  EngineOptions options;
  options.priors = priors;
  const Experiment experiment(stages(), request.pipeline, brain(), options);
  FrameAxis axis;
  axis.format = item_format({1});
  axis.count = 2;
  axis.keys = {3, 31};
  const TargetSpec target{.from = "image", .lag_s = 0, .through = "parts"};
  const Eigen::MatrixXd shown = brain().find("image")->matrix(), truth = experiment.truth(target, axis);
  EXPECT_LT((truth - components(priors->at(0), shown)(Eigen::all, std::vector<Index>{3, 31})).cwiseAbs().maxCoeff(),
            1e-12);
}

TEST(Prior, AReconstructionIsComparedInItsSpace) {
  std::string text = with(kThrough, "[[stage]]\nuse = \"keep\"\nprior = \"lib\"\n", "");
  text = with(text, "target = { from = \"image\", through = \"parts\" }", "target = \"image\"");
  text = with(text, "[[split]]",
              "[[stage]]\nname = \"in_parts\"\nuse = \"pca\"\ncomponents = 2\nfrom = \"ridge.mean\"\n"
              "model = \"parts\"\n[[split]]");
  text = with(text, "[[score]]", "[[score]]\nfrom = \"in_parts\"\ntarget = \"image\"\nthrough = \"parts\"");
  RunRequest request{parsed(text), brain(), {}, temporary_folder() / "run"};
  request.priors = {images(), images()};
  const auto outcome = run_pipeline(stages(), request);
  EXPECT_LT(outcome.result.at("scores").at("rmse").as_number(), 1e-5);
  EXPECT_EQ(outcome.result.at("scores").at("r2").as_array().size(), 2u);
  EXPECT_THAT(message_of<ConfigError>([&] { parsed(with(text, "target = \"image\"\nthrough", "through")); }),
              HasSubstr("score.target: expected the stream that goes through the prior"));
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { parsed(with(text, "\nthrough = \"parts\"\nmetrics", "\nthrough = \"part\"\nmetrics")); }),
              HasSubstr("score.through = \"part\": expected the name of a [[prior]] above: parts, lib (did you mean "
                        "'parts'?)"));
}

// the classifier calls its categories by name: its code 0 is the number 6 of the recording
TEST(Prior, ReconstructionsAreReadByAClassifierThatNeverSawAStimulus) {
  const auto of_kinds = [](Eigen::MatrixXd m) {
    for (Index k = 0; k < m.cols(); ++k) m.row(k % 2).col(k).array() += 3;  // one pixel or the other is bright
    return m;
  };
  Recording shown = brain();
  const Eigen::MatrixXd stimuli = of_kinds(shown.find("image")->matrix());
  Column label{.name = "label", .numbers = {}, .text = {}};
  for (Index k = 0; k < kItems; ++k) label.numbers.push_back(k % 2 == 0 ? 6 : 9);
  shown.streams = {items("voxels", 3 * stimuli.array() + 1, {kPixels}), items("image", stimuli, {2, 3})};
  shown.tables = {{"item", {label}}};
  Recording others = images(of_kinds(pictures(30, "others")));
  Column kind{.name = "label", .numbers = {}, .text = {}};
  for (Index k = 0; k < 30; ++k) kind.numbers.push_back(k % 2 == 0 ? 6 : 9);
  others.tables = {{"images", {kind}}};
  RunRequest request{parsed(R"([input]
data = "none"
[[prior]]
name = "kinds"
images = "first.image"
use = "linear_classifier"
[[stage]]
use = "ridge"
target = "image"
alpha = [1e-6]
covariance = "none"
[[stage]]
name = "read"
use = "linear_classifier"
from = "ridge.mean"
model = "kinds"
[[split]]
use = "kfold"
folds = 2
[[score]]
target = "item.label"
part = "category"
metrics = ["accuracy"]
bootstrap = 0
permutations = 0
shuffles = 0
)"),
                     shown,
                     {},
                     temporary_folder() / "run"};
  request.priors = {others};
  EXPECT_EQ(run_pipeline(stages(), request).result.at("scores").at("accuracy").as_number(), 1);
}

TEST(Prior, WhatCannotGoThroughItIsRefused) {
  const auto refusal = [](const std::string& what, const std::string& by) {
    const auto p = parsed(with(kThrough, what, by));
    return message_of<Error>([&] { fit_priors(stages(), p, brain(), {images(), images()}, {}, {}); });
  };
  EXPECT_THAT(refusal("parts.pca", "parts.pcs"),
              HasSubstr("prior lib.target_through = \"parts.pcs\": expected a part that 'parts' gives: pca "
                        "(did you mean 'pca'?)"));
  RunRequest request{
      parsed(with(kThrough, "from = \"image\"", "from = \"voxel\"")), brain(), {}, temporary_folder() / "run"};
  request.priors = {images(), images()};
  EXPECT_THAT(message_of<Error>([&] { run_pipeline(stages(), request); }), HasSubstr("voxel"));
}

}  // namespace
}  // namespace percept::evaluation::prior_test
