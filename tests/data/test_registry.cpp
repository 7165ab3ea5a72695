#include <gmock/gmock.h>

#include "core/error.h"
#include "core/files.h"
#include "data/loaders.h"
#include "data/registry.h"
#include "tests/data/environment.h"
#include "tests/support/data.h"

namespace percept::data {
namespace {
using ::testing::ElementsAre;
using testing::Environment;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string registry_error(const std::string& text) {
  const auto file = testing::temporary_folder() / "registry.toml";
  write_atomic(file, text);
  Environment registry("PERCEPT_DATA_REGISTRY", file);
  try {
    data_sets();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

const std::string kSet = R"([[set]]
name = "a"
title = "A"
description = "d"
licence = "MIT"
citation = "c"
source = "https://example.org"
loader = "flint_run1"
)";
const std::string kFile = R"([[set.file]]
name = "x.csv"
mirror = "a/x.csv"
url = "https://example.org/x.csv"
sha256 = "9bd0d05589750cbfdaaacb0f848b4ed73ff42e2cf1aa17671e49a22d9ce5006d"
bytes = 3
)";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(DataRegistry, BuiltInSetsAreComplete) {
  std::vector<std::string> names;
  for (auto& s : data_sets()) {
    names.push_back(s.name);
    EXPECT_NO_THROW(data_set_options(s.name));  // its loader exists
    for (auto& f : s.files) {
      EXPECT_EQ(f.url.empty(), !s.conversion.empty() || !s.package.empty()) << f.name;
      if (!f.url.empty()) {
        EXPECT_THAT(f.url, StartsWith("https://raw.githubusercontent.com/"));
      }
    }
  }
  EXPECT_THAT(names,
              ElementsAre("flint_run1", "contdata95", "dad_chewie", "hc_wmaze", "vangerven69", "miyawaki_figures",
                          "haxby_excerpt", "mnist_t10k", "usps", "notmnist", "fashion_mnist"));
  EXPECT_THAT(data_set("flint_run1").warnings.at(0), HasSubstr("whole session"));
}

TEST(DataRegistry, BuiltInTextIsTheFile) {
  Environment registry("PERCEPT_DATA_REGISTRY", testing::source_folder() / "data" / "registry.toml");
  const auto from_file = data_sets();
  Environment built_in("PERCEPT_DATA_REGISTRY", "");
  const auto embedded = data_sets();
  ASSERT_EQ(from_file.size(), embedded.size());
  for (std::size_t i = 0; i < embedded.size(); ++i) {
    EXPECT_EQ(from_file[i].description, embedded[i].description);
    EXPECT_EQ(from_file[i].files.back().sha256, embedded[i].files.back().sha256);
  }
}

TEST(DataRegistry, DescribesItselfForMachines) {
  const Value flint = describe(data_set("flint_run1")), chewie = describe(data_set("dad_chewie"));
  EXPECT_EQ(flint.at("files").as_array().at(1).at("bytes").as_integer(), 114990);
  EXPECT_TRUE(flint.at("files").as_array().at(1).contains("url"));
  EXPECT_FALSE(flint.contains("conversion"));
  EXPECT_FALSE(flint.contains("package"));
  const Value fashion = describe(data_set("fashion_mnist"));
  EXPECT_EQ(fashion.at("package").as_string(), "dataset-fashion-mnist");
  EXPECT_TRUE(fashion.at("files").as_array().at(0).contains("installed"));
  EXPECT_TRUE(chewie.contains("conversion"));
  EXPECT_FALSE(chewie.at("files").as_array().at(1).contains("url"));
}

TEST(DataRegistry, UnknownNamesGetASuggestion) {
  try {
    data_set("flint_run2");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(
        e.what(),
        "data set = flint_run2: expected one of flint_run1, contdata95, dad_chewie, hc_wmaze, vangerven69, "
        "miyawaki_figures, haxby_excerpt, mnist_t10k, usps, notmnist, fashion_mnist (did you mean 'flint_run1'?)");
  }
  try {
    data_set("flint_run1").file("y.csv");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("flint_run1 = y.csv: expected one of its files x.csv, z.csv"));
  }
}

TEST(DataRegistry, BadEntriesAreRefusedByName) {
  EXPECT_EQ(registry_error(kSet + kFile), "");
  EXPECT_THAT(registry_error(kSet), HasSubstr("expected at least one [[file]]"));
  EXPECT_THAT(registry_error(""), HasSubstr("expected at least one [[set]]"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "9bd0", "9BD0")), HasSubstr("expected 64 lower-case hexadecimal"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "bytes = 3", "bytes = -3")), HasSubstr("bytes = -3"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "a/x.csv", "../x.csv")),
              HasSubstr("expected a relative path without '..'"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "\"x.csv\"", "\"b/x.csv\"")),
              HasSubstr("expected a name without folders"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "url", "urll")), HasSubstr("did you mean 'url'?"));
  EXPECT_THAT(registry_error(kSet + replaced(kFile, "url = \"https://example.org/x.csv\"\n", "")),
              HasSubstr("a url, or a conversion"));
  EXPECT_THAT(registry_error(replaced(kSet, "title = \"A\"\n", "") + kFile), HasSubstr("title: expected a text"));
  EXPECT_THAT(registry_error(kSet + kFile + kSet + kFile), HasSubstr("name = a: expected a name that is not taken"));
  EXPECT_THAT(registry_error("[[set"), HasSubstr("registry.toml"));
}

TEST(DataRegistry, UnknownLoaderIsRefused) {
  const auto file = testing::temporary_folder() / "registry.toml";
  write_atomic(file, replaced(kSet, "flint_run1", "flint_run") + kFile);
  Environment registry("PERCEPT_DATA_REGISTRY", file);
  try {
    load_data_set("a");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("a.loader = flint_run: expected one of"));
  }
}

}  // namespace
}  // namespace percept::data
