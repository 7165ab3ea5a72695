/// The rules of docs/architecture.md that a compiler does not check: who may include whom, light public headers,
/// every source in a CMakeLists.txt, and words that have no place in the project.
/// Each rule is also shown to find a breach made on purpose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/data.h"

namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Files = std::map<std::string, std::string>;  // path below the project's folder -> text
using Breaches = std::vector<std::string>;

/// cli/ and percept/ (the whole product in one library) and tests, bench, docs may include everything, nobody includes cli/.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"core", {}},
    {"numerics", {"core"}},
    {"io", {"core"}},
    {"preprocessing", {"core", "numerics"}},
    {"filters", {"core", "numerics"}},
    {"decoders", {"core", "numerics", "filters"}},
    {"reconstruction", {"core", "numerics", "decoders"}},
    {"data", {"core", "numerics", "io"}},
    {"evaluation", {"core", "numerics", "io"}},
    {"realtime", {"core", "numerics", "filters", "decoders", "io", "data"}},
    {"percept",
     {"core", "numerics", "io", "preprocessing", "filters", "decoders", "reconstruction", "data", "evaluation",
      "realtime"}},
};

std::string folder_of(const std::string& path) { return path.substr(0, path.find('/')); }
bool ends_with(const std::string& s, const std::string& end) { return s.ends_with(end); }

/// Calls f(match, line number) for every match of the pattern in the text.
template <class F>
void for_each_match(const std::string& text, const std::regex& pattern, F f) {
  std::stringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number)
    if (std::smatch m; std::regex_search(line, m, pattern)) f(m, number);
}

std::string place(const std::string& path, int line) { return path + ":" + std::to_string(line) + ": "; }

Breaches include_breaches(const Files& files) {
  static const std::regex include(R"re(^\s*#\s*include\s+"([a-z]+)/)re");
  Breaches all;
  for (auto& [path, text] : files) {
    const std::string from = folder_of(path);
    auto rule = kMayInclude.find(from);
    if (rule == kMayInclude.end() || !(ends_with(path, ".h") || ends_with(path, ".cpp"))) continue;
    for_each_match(text, include, [&](const std::smatch& m, int line) {
      const std::string to = m[1];
      if ((kMayInclude.contains(to) || to == "cli" || to == "tests") && to != from && !rule->second.contains(to))
        all.push_back(place(path, line) + from + "/ may not include " + to + "/");
    });
  }
  return all;
}

Breaches heavy_header_breaches(const Files& files) {
  static const std::regex heavy(
      R"re(^\s*#\s*include\s+["<]((toml\+\+|nlohmann|spdlog|fmt|CLI|tbb|oneapi|torch|ATen|c10|openssl|curl)/|itk|hdf5|H5|matio|fftw3|pugixml))re");
  Breaches all;
  for (auto& [path, text] : files)
    if (ends_with(path, ".h") && folder_of(path) != "cli")  // nobody includes those
      for_each_match(text, heavy, [&](const std::smatch& m, int line) {
        all.push_back(place(path, line) + "heavy header " + m[1].str() + " in a header");
      });
  return all;
}

/// A source counts as listed when a CMakeLists.txt names it from its own folder or from the project's;
/// percept_fuzz(x) names fuzz_x.cpp.
Breaches unlisted_sources(const Files& files) {
  static const std::regex space(R"re([\s()"]+)re");
  std::set<std::string> listed;
  for (auto& [path, text] : files) {
    if (!ends_with(path, "CMakeLists.txt")) continue;
    const fs::path folder = fs::path(path).parent_path();
    for (std::sregex_token_iterator word(text.begin(), text.end(), space, -1), end; word != end; ++word) {
      std::string name = *word;
      if (name == "percept_fuzz" && ++word != end) name = "fuzz_" + word->str() + ".cpp";
      if (!ends_with(name, ".cpp")) continue;
      const std::string from_root = "${PROJECT_SOURCE_DIR}/";
      listed.insert(name.starts_with(from_root) ? name.substr(from_root.size())
                                                : (folder / name).lexically_normal().generic_string());
    }
  }
  Breaches all;
  for (auto& [path, text] : files)
    if (ends_with(path, ".cpp") && !listed.contains(path)) all.push_back(path + ": in no CMakeLists.txt");
  return all;
}

/// Places of one machine, package registries and numbers of issues; ./dev may know where recordings lie beside a checkout.
Breaches word_breaches(const Files& files) {
  // every word is written in two pieces, so that this file does not name it
  static const std::regex words(std::string("(^|[^A-Za-z0-9_.])(/wo") + "rk(?![A-Za-z0-9_])|/ro" +
                                "ot(?![A-Za-z0-9_]))" + "|\\.\\./sha" + "red|py" + "pi\\.org|registry\\.np" +
                                "mjs|deb\\.deb" + "ian\\.org|proxy\\.gol" + "ang|crates\\." + "io|\\bis" +
                                "sues? #?[0-9]");
  Breaches all;
  for (auto& [path, text] : files) {
    if (path == "dev" || path == "LICENSE") continue;
    for_each_match(text, words, [&](const std::smatch& m, int line) {
      all.push_back(place(path, line) + "forbidden word '" + m.str() + "'");
    });
  }
  return all;
}

bool is_text(const std::string& path) {
  static const std::set<std::string> kinds = {"",    ".h",  ".cpp", ".md",  ".txt",  ".cmake", ".in",  ".toml", ".json",
                                              ".py", ".sh", ".js",  ".css", ".html", ".supp",  ".yml", ".yaml"};
  return kinds.contains(fs::path(path).extension().string());
}

Files project_files() {
  const fs::path root = percept::testing::source_folder();
  const std::set<std::string> left_out = {"build", "runs", ".git", ".cache", "node_modules", "__pycache__"};
  Files files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
    if (it->is_directory() && left_out.contains(it->path().filename().string())) it.disable_recursion_pending();
    const std::string path = fs::relative(it->path(), root).generic_string();
    if (!it->is_regular_file() || !is_text(path) || path == ".git") continue;  // a file in a second work tree
    std::ifstream in(it->path(), std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    files[path] = text.str();
  }
  return files;
}

class Project : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { files_ = project_files(); }
  static inline Files files_;
};

TEST_F(Project, IsReadWhole) {
  EXPECT_TRUE(files_.contains("core/stage.h"));
  EXPECT_TRUE(files_.contains("tests/rules/test_rules.cpp"));
  EXPECT_TRUE(files_.contains(".ci/run"));
}
TEST_F(Project, FoldersIncludeWhatTheyMay) { EXPECT_THAT(include_breaches(files_), IsEmpty()); }
TEST_F(Project, PublicHeadersAreLight) { EXPECT_THAT(heavy_header_breaches(files_), IsEmpty()); }
TEST_F(Project, EverySourceIsBuilt) { EXPECT_THAT(unlisted_sources(files_), IsEmpty()); }
TEST_F(Project, NamesNoMachine) { EXPECT_THAT(word_breaches(files_), IsEmpty()); }

TEST(Rule, IncludeAgainstTheDirectionIsFound) {
  EXPECT_THAT(include_breaches({{"core/a.cpp", "#include <vector>\n#include \"filters/kalman.h\"\n"}}),
              ElementsAre("core/a.cpp:2: core/ may not include filters/"));
  EXPECT_THAT(include_breaches({{"filters/a.h", "# include \"cli/main.h\"\n"}}), ElementsAre(HasSubstr("cli/")));
  EXPECT_THAT(include_breaches({{"filters/a.cpp", "#include \"core/a.h\"\n#include \"filters/b.h\"\n"}}), IsEmpty());
}
TEST(Rule, HeavyHeaderIsFound) {
  EXPECT_THAT(heavy_header_breaches({{"io/a.h", "#include <hdf5.h>\n#include <toml++/toml.h>\n"}}),
              ElementsAre(HasSubstr("io/a.h:1"), HasSubstr("io/a.h:2")));
  EXPECT_THAT(heavy_header_breaches({{"io/a.cpp", "#include <hdf5.h>\n"}, {"io/b.h", "#include \"io/hdf5.h\"\n"}}),
              IsEmpty());
}
TEST(Rule, SourceThatNobodyBuildsIsFound) {
  const Files tree = {
      {"io/CMakeLists.txt", "percept_library(io SOURCES csv.cpp deep/a.cpp\n${PROJECT_SOURCE_DIR}/docs/b.cpp)"},
      {"io/csv.cpp", ""},
      {"io/deep/a.cpp", ""},
      {"docs/b.cpp", ""},
      {"tests/CMakeLists.txt", "percept_fuzz(csv)"},
      {"tests/fuzz_csv.cpp", ""},
      {"io/lost.cpp", ""}};
  EXPECT_THAT(unlisted_sources(tree), ElementsAre("io/lost.cpp: in no CMakeLists.txt"));
}
TEST(Rule, ForbiddenWordIsFound) {
  const std::string place = std::string("/wo") + "rk";
  EXPECT_THAT(word_breaches({{"a.md", "see " + place + "/x\nand frame" + place + " or " + place + "ers\n"}}),
              ElementsAre(HasSubstr("a.md:1")));
  EXPECT_THAT(word_breaches({{"core/a.cpp", std::string("// is") + "sue 12\n"}}),
              ElementsAre(HasSubstr("core/a.cpp:1")));
  EXPECT_THAT(word_breaches({{"dev", std::string("../sha") + "red/data\n"}}), IsEmpty());
}

}  // namespace
