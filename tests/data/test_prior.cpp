/// Where the images of a prior come from.
#include "data/prior.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "core/files.h"
#include "io/store.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::data {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

/// n images of 2 x 3; pixel i of image k is first + 10 k + i.
Stream images(const std::string& name, Index n, double first, std::vector<Index> shape = {2, 3}) {
  Stream s;
  s.name = name;
  s.format = item_format(std::move(shape), Scalar::f64, name);
  Eigen::MatrixXd m(s.format.size(), n);
  for (Index k = 0; k < n; ++k) {
    s.keys.push_back(2 * k);  // every other row of its table
    for (Index i = 0; i < m.rows(); ++i) m(i, k) = first + 10.0 * static_cast<double>(k) + static_cast<double>(i);
  }
  s.samples = std::make_shared<MemorySource>(std::move(m));
  return s;
}

Column numbers(const std::string& name, std::vector<double> values) {
  return {.name = name, .numbers = std::move(values), .text = {}};
}

class PriorImages : public ::testing::Test {
 protected:
  void write(const std::string& file, const Stream& s, const std::vector<Table>& tables = {}) const {
    Recording r;
    r.name = "r";
    r.streams = {s};
    r.tables = tables;
    io::write_store(folder_ / file, r);
  }
  PriorSpec spec(std::vector<std::string> names, std::vector<Value> labels = {}) const {
    PriorSpec p;
    p.name = "lib";
    p.where = "a.toml: prior lib";
    p.images = std::move(names);
    p.labels = std::move(labels);
    return p;
  }
  Recording load(const PriorSpec& p) const { return load_priors({p}, folder_).at(0); }

  const fs::path folder_ = testing::temporary_folder();
};

TEST_F(PriorImages, AllSourcesStandOneBehindTheOther) {
  write("a.percept", images("image", 3, 0), {{"image", {numbers("label", {6, 0, 9, 0, 6})}}});
  write("b.percept", images("picture", 2, 100), {{"item", {numbers("label", {9, 0, 7})}}});
  const Recording all = load(spec({"a.percept", "b.percept"}));
  ASSERT_EQ(all.streams.size(), 1u);
  EXPECT_EQ(all.streams[0].format.parts[0].shape, (std::vector<Index>{2, 3}));
  EXPECT_THAT(all.streams[0].keys, ElementsAre(0, 1, 2, 3, 4));
  const Eigen::RowVectorXd firsts = all.streams[0].matrix().row(0);
  EXPECT_THAT(std::vector<double>(firsts.begin(), firsts.end()), ElementsAre(0, 10, 20, 100, 110));
  EXPECT_THAT(all.table("images")->find("label")->numbers, ElementsAre(6, 9, 6, 9, 7));
  EXPECT_EQ(to_json(all.meta.at("sources")),
            "[{\"name\":\"a.percept\",\"images\":3},{\"name\":\"b.percept\",\"images\":2}]");
  EXPECT_EQ(all.meta.at("input").at("b.percept").as_string(), sha256_file(folder_ / "b.percept"));

  const Recording some = load(spec({"a.percept", "b.percept"}, {6, 7.0}));
  const Eigen::RowVectorXd chosen = some.streams[0].matrix().row(0);
  EXPECT_THAT(std::vector<double>(chosen.begin(), chosen.end()), ElementsAre(0, 20, 110));
  EXPECT_THAT(some.table("images")->find("label")->numbers, ElementsAre(6, 6, 7));
}

TEST(PriorSets, StreamsOfRegisteredSetsByLabel) {
  fs::path any;
  PERCEPT_NEED_DATA(any, "fmri/vangerven69/prior_2000x28x28_u1.npy");
  PriorSpec p;
  p.name = "digits";
  p.where = "a.toml: prior digits";
  p.images = {"vangerven69.prior", "mnist_t10k.image"};
  p.labels = {6, 9};
  const Recording all = load_priors({p}, ".").at(0);
  EXPECT_EQ(to_json(all.meta.at("sources")),
            "[{\"name\":\"vangerven69.prior\",\"images\":2000},{\"name\":\"mnist_t10k.image\",\"images\":1967}]");
  EXPECT_EQ(all.streams.at(0).frames(), 3967);
  EXPECT_LE(all.streams[0].matrix().maxCoeff(), 1);
  const auto& labels = all.table("images")->find("label")->numbers;
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 6), 1000 + 958);
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 9), 1000 + 1009);
  const Recording here = outline_priors({p}, ".").at(0);
  EXPECT_EQ(here.streams.at(0).frames(), 3967) << "sets that are on this machine are counted";
  p.images = {"vangerven69.image"};
  EXPECT_EQ(load_priors({p}, ".").at(0).table("images")->find("label")->numbers.at(99), 9)
      << "of two tables with labels, that of the items";
}

TEST_F(PriorImages, LabelsMayBeTextsAndMayBeMissing) {
  write("a.percept", images("image", 2, 0),
        {{"image", {Column{.name = "kind", .numbers = {}, .text = {"cat", "", "dog"}}}}});
  write("plain.percept", images("image", 1, 0));
  PriorSpec p = spec({"a.percept"}, {"dog"});
  p.label = "image.kind";
  EXPECT_THAT(load(p).table("images")->find("label")->text, ElementsAre("dog"));
  p.images = {"a.percept", "plain.percept"};
  p.labels.clear();
  EXPECT_EQ(load(p).table("images"), nullptr) << "some images have no label";
  EXPECT_EQ(load(p).streams[0].frames(), 3);
}

TEST_F(PriorImages, WhatCannotBeUsedIsRefused) {
  write("a.percept", images("image", 3, 0), {{"image", {numbers("label", {6, 0, 9, 0, 6})}}});
  write("wide.percept", images("image", 3, 0, {3, 2}));
  write("text.percept", images("image", 1, 0), {{"t", {Column{.name = "label", .numbers = {}, .text = {"six"}}}}});
  write("two.percept", images("image", 1, 0), {{"s", {numbers("label", {6})}}, {"t", {numbers("label", {6})}}});
  write("time.percept", memory_stream("x", Eigen::MatrixXd::Ones(6, 3), 10));
  auto refusal = [&](const PriorSpec& p) { return message_of<Error>([&] { load(p); }); };
  EXPECT_THAT(refusal(spec({"a.percept", "wide.percept"})),
              HasSubstr("a.toml: prior lib.images = \"wide.percept\": expected images of {2, 3}"));
  EXPECT_THAT(refusal(spec({"time.percept"})), HasSubstr("expected a stream of images (items), found"));
  EXPECT_THAT(
      refusal(spec({"wide.percept"}, {6})),
      HasSubstr("lib.label = \"label\": expected a column of a table with a row for every image of wide.percept"));
  EXPECT_THAT(refusal(spec({"a.percept"}, {3})),
              HasSubstr("expected at least one image with such a label, found none"));
  EXPECT_THAT(refusal(spec({"a.percept", "text.percept"})),
              HasSubstr("expected labels of one kind, found numbers and texts"));
  EXPECT_THAT(refusal(spec({"two.percept"})), HasSubstr("expected one of s.label, t.label (\"table.column\")"));
  EXPECT_THAT(refusal(spec({"nonsense"})),
              HasSubstr("= \"nonsense\": expected SET.STREAM of a registered set, or a file"));
  EXPECT_THAT(refusal(spec({"flint_rum1.activity"})), HasSubstr("did you mean 'flint_run1'"));
  EXPECT_THAT(refusal(spec({"none.npy"})), HasSubstr("none.npy"));
  EXPECT_THAT(message_of<Error>([&] { outline_priors({spec({"none.npy"})}, folder_); }), HasSubstr("none.npy"));
}

TEST_F(PriorImages, AnOutlineReadsNoImages) {
  write("a.percept", images("image", 3, 0));
  const auto outline = outline_priors({spec({"a.percept"})}, folder_).at(0);
  EXPECT_TRUE(outline.streams.empty());
  EXPECT_EQ(outline.meta.at("sources").as_array().at(0).at("name").as_string(), "a.percept");
}

}  // namespace
}  // namespace percept::data
