#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/recording.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::io_test {

using testing::message_of;

/// A file with this content in a folder of its own.
inline std::filesystem::path file_with(const std::string& name, const std::string& content) {
  const auto file = testing::temporary_folder() / name;
  std::ofstream(file, std::ios::binary) << content;
  return file;
}

inline std::string bytes_of_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Frames read in blocks of n.
inline Eigen::MatrixXd in_blocks(const SampleSource& source, Index rows, Index n) {
  Eigen::MatrixXd m(rows, source.frames());
  for (Index k = 0; k < m.cols(); k += n) {
    const Index some = std::min(n, m.cols() - k);
    source.read(k, MutableFrames(m.data() + k * rows, Scalar::f64, rows, some, rows));
  }
  return m;
}

/// Equal bit by bit where both are numbers, NaN where the other is.
inline bool same(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index i = 0; i < a.size(); ++i)
    if (!(a.data()[i] == b.data()[i] || (std::isnan(a.data()[i]) && std::isnan(b.data()[i])))) return false;
  return true;
}

}  // namespace percept::io_test
