#include "core/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/threads.h"
#include "decoders/stages.h"
#include "tests/support/data.h"

namespace percept {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string message(const std::vector<fs::path>& folders) {
  try {
    open_module(folders);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
fs::path fake(const std::string& kind) { return fs::path(FAKE_MODULE_DIR) / kind; }

std::string loaded_libraries() {
  std::ifstream maps("/proc/self/maps");
  std::stringstream text;
  text << maps.rdbuf();
  return text.str();
}

TEST(Module, NothingLoadsLibTorchBeforeItIsNeeded) {
  EXPECT_FALSE(decoders_stages().empty());
  EXPECT_FALSE(torch_is_loaded());
  EXPECT_THAT(loaded_libraries(),
              AllOf(HasSubstr("libpercept_core"), Not(HasSubstr("libtorch")), Not(HasSubstr("libc10"))));
}

TEST(Module, MissingOneSaysWhereItWasLookedFor) {
  const fs::path a = testing::temporary_folder(), b = testing::temporary_folder();
  EXPECT_THAT(message({a, b}),
              AllOf(HasSubstr("libpercept_nn.so was not found"), HasSubstr(a.string() + ", " + b.string())));
#if !PERCEPT_WITH_TORCH
  EXPECT_THAT(message({a}), HasSubstr("percept was built without LibTorch"));
#endif
}

TEST(Module, AnotherBuildOrAnotherFileIsRefused) {
  EXPECT_THAT(message({fake("other_build")}),
              AllOf(HasSubstr("belongs to another build of percept"), HasSubstr("found 'another build'")));
  EXPECT_THAT(message({fake("no_symbol")}), HasSubstr("is not a module of percept"));
  const fs::path folder = testing::temporary_folder();
  std::ofstream(folder / "libpercept_nn.so") << "not a library";
  EXPECT_THAT(message({folder}),
              AllOf(HasSubstr((folder / "libpercept_nn.so").string()), HasSubstr("cannot be opened")));
}

TEST(Module, IsTakenFromTheFirstFolderThatHasItAndGivenTheThreads) {
  const ModuleEntry& entry = open_module({testing::temporary_folder(), fake("good"), fake("other_build")});
  const int& threads = *static_cast<int*>(entry.find("threads"));
  EXPECT_EQ(entry.find("unknown"), nullptr);
  EXPECT_GE(threads, 1);
  set_thread_budget(3);
  set_kernel_threads(3);
  EXPECT_EQ(threads, 3);
  set_kernel_threads(1);
  EXPECT_EQ(threads, 1);
  set_thread_budget(0);
}

TEST(Module, IsLookedForBesideTheLibrariesAndInTheChosenFolder) {
  ::setenv("PERCEPT_MODULE_DIR", "/somewhere/else", 1);
  const auto folders = module_folders();
  ::unsetenv("PERCEPT_MODULE_DIR");
  ASSERT_GE(folders.size(), 3u);
  EXPECT_EQ(folders[0], "/somewhere/else");
  const fs::path beside_program = fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "lib";
  EXPECT_NE(std::find(folders.begin(), folders.end(), beside_program), folders.end());
  EXPECT_NE(std::find(folders.begin(), folders.end(), beside_program / "percept"), folders.end());
  EXPECT_EQ(module_folders().size(), folders.size() - 1);
}

}  // namespace
}  // namespace percept
