/// Every registered stage keeps every law, on every sample its row of the registry brings.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "percept/registry.h"
#include "tests/support/contract.h"
#include "tests/support/driver.h"

namespace percept::testing {
namespace {

class Contract : public ::testing::TestWithParam<std::tuple<std::string, std::size_t>> {};

TEST_P(Contract, Holds) {
  const auto& [name, law] = GetParam();
  const StageInfo& info = builtin_registry().at(name, "contract");
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
