/// Every registered stage keeps every law, on every sample its row of the registry brings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "core/model.h"
#include "percept/registry.h"
#include "tests/support/contract.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::testing {
namespace {

class Contract : public ::testing::TestWithParam<std::tuple<std::string, std::size_t>> {};

TEST_P(Contract, Holds) {
  const auto& [name, law] = GetParam();
  const StageInfo& info = builtin_registry().at(name, "contract");
  if (!PERCEPT_WITH_TORCH && info.needs_torch) GTEST_SKIP() << "percept was built without LibTorch";
  const auto samples = info.samples();
  ASSERT_FALSE(samples.empty());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto result = contract_laws()[law].check(info, samples[i]);
    EXPECT_TRUE(result.ok()) << "sample " << i << " (" << samples[i].format.describe() << ", "
                             << to_json(samples[i].params) << ")\n"
                             << result.text();
  }
}

std::string test_name(const ::testing::TestParamInfo<Contract::ParamType>& info) {
  return std::get<0>(info.param) + "_" + contract_laws()[std::get<1>(info.param)].name;
}

INSTANTIATE_TEST_SUITE_P(Stages, Contract,
                         ::testing::Combine(::testing::ValuesIn(builtin_registry().names()),
                                            ::testing::Range<std::size_t>(0, contract_laws().size())),
                         test_name);

/// The format with rows of these names, in this order.
StreamFormat with_rows(StreamFormat format, const std::vector<std::string>& names) {
  format.parts.at(0).rows.assign(names.size(), {});
  for (std::size_t i = 0; i < names.size(); ++i) format.parts[0].rows[i].name = names[i];
  return format;
}

/// Every trained stage that takes channels, which have names as the pixels of an image have not: channels in another
/// order are put in that of the model, and other channels are refused.
class Channels : public ::testing::TestWithParam<std::string> {};

bool takes_channels(const Sample& s) { return s.format.parts.size() == 1 && s.format.parts[0].shape.size() == 1; }

TEST_P(Channels, AreMatchedByNameOrRefused) {
  const StageInfo& info = builtin_registry().at(GetParam(), "contract");
  if (!PERCEPT_WITH_TORCH && info.needs_torch) GTEST_SKIP() << "percept was built without LibTorch";
  int checked = 0;
  for (const Sample& sample : info.samples()) {
    StageInput input = input_of(sample, Scalar::f64, 40);
    if (!takes_channels(sample)) continue;  // images, or a posterior, whose stages test how they match outputs
    const Index n = input.format.size();
    std::vector<std::string> names, turned, other;
    std::vector<Index> order;
    for (Index i = 0; i < n; ++i) names.push_back("unit " + std::to_string(i));
    for (Index i = 0; i < n; ++i) order.push_back((i + 1) % n);
    for (const Index i : order) turned.push_back(names[static_cast<std::size_t>(i)]);
    other = turned;
    other[0] = "stranger";
    Model model = *sample.model;
    model.meta["input_rows"] = Value(names);
    const auto apply = [&](const std::vector<std::string>& rows, const Eigen::MatrixXd& frames) {
      StageInput given = input;
      given.format = with_rows(input.format, rows);
      given.frames = frames;
      return run_stage(*info.make(sample.params, &model, "stage"), given);
    };
    const Collected a = apply(names, input.frames);
    const Collected b = apply(turned, input.frames(order, Eigen::all));
    Eigen::MatrixXd of_turned = b.matrix();
    // a stage whose output has the input's channels gives them in the input's order
    if (b.format.parts.size() == 1 && b.format.row_names() == turned)
      for (Index i = 0; i < n; ++i) of_turned.row(order[static_cast<std::size_t>(i)]) = b.matrix().row(i);
    ASSERT_GT(a.frames(), 0);
    EXPECT_LT((a.matrix() - of_turned).cwiseAbs().maxCoeff(), 1e-12) << "sums may run in another order";
    EXPECT_THAT(message_of([&] { apply(other, input.frames); }),
                ::testing::AllOf(::testing::HasSubstr("stage.from = no channel 'unit 1'"),
                                 ::testing::HasSubstr("expected every channel the model was fitted on")));
    ++checked;
  }
  EXPECT_GT(checked, 0) << "no sample to check";
}

std::vector<std::string> stages_of_channels() {
  std::vector<std::string> names;
  for (auto& info : builtin_registry().all()) {
    const auto samples = info.samples();
    if (info.trained && info.name != "image_library" && info.name != "diffusion_prior" &&
        info.name != "image_autoencoder" && std::any_of(samples.begin(), samples.end(), [](const Sample& s) {
          return s.format.parts.size() == 1 && s.model && s.model->meta.find("input_rows");
        }))
      names.push_back(info.name);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Stages, Channels, ::testing::ValuesIn(stages_of_channels()),
                         [](const auto& info) { return info.param; });

TEST(BuiltinRegistry, MapsAndFiltersMatchChannels) {
  EXPECT_THAT(stages_of_channels(),
              ::testing::IsSupersetOf({"adaptive_kalman", "dense_network", "ekf", "enkf", "gaussian_process", "impute",
                                       "kalman", "nadaraya_watson", "pca", "poisson_bayes", "recurrent_network",
                                       "ridge", "ukf", "zscore"}));
}

TEST(BuiltinRegistry, HasStagesOfEveryFolder) {
  for (const char* folder : {"preprocessing", "filters", "decoders"}) {
    const auto& all = builtin_registry().all();
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const StageInfo& i) { return i.folder == folder; })) << folder;
  }
}

TEST(BuiltinRegistry, ACausalTwinExistsAndIsCausal) {
  for (auto& info : builtin_registry().all()) {
    if (info.causal_twin.empty()) continue;
    const StageInfo* twin = builtin_registry().find(info.causal_twin);
    ASSERT_TRUE(twin) << info.name << " names the causal twin '" << info.causal_twin << "', which is not registered";
    for (const Sample& s : twin->samples()) {
      auto stage = twin->make(s.params, s.model.get(), twin->name);
      const StageInput input = input_of(s, Scalar::f64, 1);
      StageDriver driver(*stage, input);
      EXPECT_TRUE(stage->traits().causal) << info.name << " names " << twin->name;
    }
  }
}

}  // namespace
}  // namespace percept::testing
