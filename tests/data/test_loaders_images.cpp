#include <gmock/gmock.h>

#include "core/files.h"
#include "data/fetch.h"
#include "data/loaders.h"
#include "data/registry.h"
#include "tests/data/environment.h"
#include "tests/support/data.h"

namespace percept::data {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using testing::Environment;
using ::testing::HasSubstr;

/// The label of the nearest class mean of the first images, for those behind them: pictures and labels belong together.
double nearest_mean(const Recording& r, Index train, Index test) {
  const Stream &image = r.stream("image", "test"), &label = r.stream("label", "test");
  const auto take = [](const Stream& s, Index first, Index n) {
    Eigen::MatrixXd m(s.format.size(), n);
    s.samples->read(first, MutableFrames(m.data(), Scalar::f64, m.rows(), n, m.rows()));
    return m;
  };
  const Eigen::MatrixXd x = take(image, 0, train), y = take(label, 0, train);
  Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(x.rows(), 10);
  Eigen::VectorXd n = Eigen::VectorXd::Zero(10);
  for (Index k = 0; k < train; ++k) {
    mean.col(static_cast<Index>(y(0, k))) += x.col(k);
    n[static_cast<Index>(y(0, k))] += 1;
  }
  for (Index c = 0; c < 10; ++c) mean.col(c) /= n[c];
  const Eigen::MatrixXd u = take(image, image.frames() - test, test), v = take(label, label.frames() - test, test);
  int right = 0;
  for (Index k = 0; k < test; ++k) {
    Index nearest = 0;
    (mean.colwise() - u.col(k)).colwise().squaredNorm().minCoeff(&nearest);
    right += nearest == static_cast<Index>(v(0, k));
  }
  return static_cast<double>(right) / static_cast<double>(test);
}

void expect_images(const Recording& r, std::int64_t n, Index side) {
  const Stream& image = r.stream("image", "test");
  EXPECT_EQ(image.frames(), n);
  EXPECT_EQ(image.keys.back(), n - 1);
  EXPECT_THAT(image.format.parts.at(0).shape, ElementsAre(side, side));
  EXPECT_EQ(r.stream("label", "test").frames(), n);
  EXPECT_EQ(r.stream("label", "test").format.parts[0].levels.size(), 10u);
  EXPECT_EQ(r.table("item")->find("label")->size(), static_cast<std::size_t>(n));
}

TEST(LoadersImages, MnistT10k) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "images/mnist/t10k-images-idx3-ubyte.gz");
  const Recording r = load_data_set("mnist_t10k");
  expect_images(r, 10000, 28);
  const Eigen::MatrixXd image = r.stream("image", "test").matrix();
  EXPECT_EQ(image.maxCoeff(), 1.0);
  EXPECT_EQ(image.minCoeff(), 0);
  EXPECT_EQ(r.table("item")->find("label")->numbers.at(0), 7);  // the first test digit is a seven
  EXPECT_GT(nearest_mean(r, 5000, 5000), 0.8);
}

TEST(LoadersImages, NotMnist) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "images/notmnist/t10k-images-idx3-ubyte.gz");
  const Recording r = load_data_set("notmnist");
  expect_images(r, 10000, 28);
  const auto& name = r.table("item")->find("name")->text;
  for (const char* letter : {"A", "J"}) EXPECT_EQ(std::count(name.begin(), name.end(), letter), 1000) << letter;
  EXPECT_GT(nearest_mean(r, 5000, 5000), 0.7);
}

TEST(LoadersImages, Usps) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "images/usps/usps.h5");
  const Recording r = load_data_set("usps");
  expect_images(r, 9298, 16);
  const auto& split = r.table("item")->find("split")->text;
  EXPECT_EQ(std::count(split.begin(), split.end(), "test"), 2007);
  EXPECT_EQ(split.back(), "test");
  // images across the boundary of the two pieces, as the pieces have them
  Eigen::MatrixXd two(256, 2), one(256, 1);
  const Stream& image = r.stream("image", "test");
  image.samples->read(7290, MutableFrames(two.data(), Scalar::f64, 256, 2, 256));
  for (Index k = 0; k < 2; ++k) {
    image.samples->read(7290 + k, MutableFrames(one.data(), Scalar::f64, 256, 1, 256));
    EXPECT_EQ(two.col(k), one) << k;
  }
  EXPECT_GT(nearest_mean(r, 7291, 2007), 0.75);
}

TEST(LoadersImages, FashionMnist) {
  const DataSet set = data_set("fashion_mnist");
  if (!locate(set, set.files[0].name)) {
    ASSERT_FALSE(testing::in_ci()) << "no Debian package dataset-fashion-mnist";
    GTEST_SKIP() << "needs the Debian package dataset-fashion-mnist";
  }
  const Recording r = load_data_set("fashion_mnist");
  expect_images(r, 70000, 28);
  EXPECT_EQ(r.table("item")->find("name")->text.at(0), "ankle boot");
  EXPECT_EQ(r.table("item")->find("split")->text.at(59999), "train");
  EXPECT_EQ(r.table("item")->find("split")->text.at(60000), "test");
  EXPECT_GT(nearest_mean(r, 5000, 5000), 0.6);
}

TEST(LoadersImages, AMissingPackageIsNamed) {
  const auto registry = testing::temporary_folder() / "registry.toml";
  write_atomic(registry, R"([[set]]
name = "clothes"
title = "C"
description = "d"
licence = "MIT"
citation = "c"
source = "https://example.org"
package = "dataset-clothes"
loader = "fashion_mnist"
[[set.file]]
name = "x.gz"
mirror = "clothes/x.gz"
installed = "/usr/share/no-such-folder/x.gz"
sha256 = "9bd0d05589750cbfdaaacb0f848b4ed73ff42e2cf1aa17671e49a22d9ce5006d"
bytes = 3
)");
  Environment other("PERCEPT_DATA_REGISTRY", registry);
  Environment cache("XDG_CACHE_HOME", testing::temporary_folder());
  try {
    fetch(data_set("clothes"), "x.gz");
    FAIL();
  } catch (const Unavailable& e) {
    EXPECT_STREQ(e.what(),
                 "x.gz of clothes is missing: install the Debian package dataset-clothes, which puts it at "
                 "/usr/share/no-such-folder/x.gz, or set PERCEPT_DATA_MIRROR to a folder that holds clothes/x.gz");
  }
}

TEST(LoadersImages, AnInstalledFileIsUsedInPlaceAndVerified) {
  const auto folder = testing::temporary_folder();
  write_atomic(folder / "x.gz", "abc");
  DataSet set;
  set.name = "clothes";
  set.package = "dataset-clothes";
  set.files = {{.name = "x.gz",
                .mirror = "clothes/x.gz",
                .url = "",
                .sha256 = sha256("abc"),
                .bytes = 3,
                .installed = (folder / "x.gz").string()}};
  EXPECT_EQ(fetch(set, "x.gz"), folder / "x.gz");
  write_atomic(folder / "x.gz", "abd");
  EXPECT_THROW(fetch(set, "x.gz"), DataError);
}

}  // namespace
}  // namespace percept::data
