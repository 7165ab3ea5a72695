#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <vector>

#include "core/memory.h"

/// Prints every skipped test by name at the end, so that a summary never hides one.
class SkipReporter : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo& info) override {
    if (info.result()->Skipped()) skipped_.push_back(std::string(info.test_suite_name()) + "." + info.name());
  }
  void OnTestProgramEnd(const ::testing::UnitTest&) override {
    for (auto& s : skipped_) std::cout << "SKIPPED " << s << "\n";
  }
  std::vector<std::string> skipped_;
};

int main(int argc, char** argv) {
  percept::keep_freed_memory();  // as the program does
  ::testing::InitGoogleMock(&argc, argv);
  ::testing::UnitTest::GetInstance()->listeners().Append(new SkipReporter);
  return RUN_ALL_TESTS();
}
