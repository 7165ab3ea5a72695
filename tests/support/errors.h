/// What an error says.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"

namespace percept::testing {

/// The message of the error that f throws: one line; "" when it throws none.
template <class E = Error, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    const std::string m = e.what();
    EXPECT_EQ(m.find('\n'), m.npos) << m;
    return m;
  }
  return "";
}

}  // namespace percept::testing
