#include "io/open.h"

#include <gmock/gmock.h>

#include "core/files.h"
#include "io/npy.h"
#include "io/store.h"
#include "tests/io/helpers.h"

namespace percept::io {
namespace {
namespace fs = std::filesystem;
using io_test::file_with;
using io_test::message_of;
using ::testing::HasSubstr;

TEST(Open, EveryKindOfRealFile) {
  fs::path csv, mat, h5;
  PERCEPT_NEED_DATA(csv, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(mat, "bci/contdata95/contdata95.mat");
  PERCEPT_NEED_DATA(h5, "calcium/celegans_flavell/2022-01-16-01.h5");
  const Stream s =
      open_stream(csv, Value::object({{"header", false}, {"rate_hz", 10}, {"start_s", 0.5}, {"name", "activity"}}));
  EXPECT_EQ(s.name, "activity");
  EXPECT_EQ(s.format.describe(), "{10} x f64 at 10 Hz");
  EXPECT_EQ(s.format.start_s, 0.5);
  EXPECT_EQ(s.matrix().transpose(), testing::read_reference(csv));
  const Stream y = open_stream(mat, Value::object({{"variable", "Y"}}));
  EXPECT_EQ(y.format.axis, Axis::item);
  EXPECT_EQ(y.keys.size(), static_cast<std::size_t>(y.frames()));
  EXPECT_GT(y.frames(), y.format.size());  // bins are frames, electrodes rows
  EXPECT_EQ(open_stream(mat, Value::object({{"variable", "Y"}, {"transpose", true}})).matrix(), y.matrix().transpose());
  const Value info = describe_file(h5);
  EXPECT_EQ(info.at("kind").as_string(), "hdf5");
  EXPECT_FALSE(info.at("contents").as_array().empty());
  for (const auto& file : {csv, mat, h5}) check_file(file);
  const Recording r = open_recording(csv, Value::object({{"header", false}}));
  EXPECT_EQ(r.meta.at("input").at("x.csv").as_string(), sha256_file(csv));
}

TEST(Open, TransposeAndNames) {
  const auto csv = file_with("m.csv", "a,b\n1,2\n3,4\n5,6\n");
  const Stream s = open_stream(csv, Value::object({{"header", true}, {"unit", "V"}}));
  EXPECT_THAT(s.format.row_names(), ::testing::ElementsAre("a", "b"));
  EXPECT_EQ(s.format.parts[0].unit, "V");
  const Eigen::MatrixXd m = s.matrix();
  EXPECT_EQ(open_stream(csv, Value::object({{"header", true}, {"transpose", true}})).matrix(), m.transpose());
  EXPECT_EQ(open_stream(file_with("m.tsv", "1\t2\n"), Value::object({{"header", false}})).matrix(),
            Eigen::Vector2d(1, 2));
  const auto npy = testing::temporary_folder() / "m.npy";
  write_npy(npy, ConstFrames(m.data(), Scalar::f64, 2, 3, 2));
  EXPECT_EQ(open_stream(npy).matrix(), m);
  EXPECT_EQ(open_stream(npy, Value::object({{"transpose", true}})).matrix(), m.transpose());
}

TEST(Open, AnOutlineHasTheFormatAndNoSamples) {
  fs::path mat;
  const auto csv = file_with("name.csv", "a,b,c\n1,2,3\n4,5,6\n"), npy = csv.parent_path() / "x.npy";
  const Eigen::MatrixXf m = Eigen::MatrixXf::Random(6, 5);
  write_npy(npy, ConstFrames(m.data(), Scalar::f32, 6, 5, 6), {3, 2});
  auto same = [](const fs::path& file, Value options) {
    options["rate_hz"] = 20;
    const Stream whole = open_stream(file, options), head = outline_stream(file, options);
    EXPECT_EQ(head.format, whole.format) << file;
    EXPECT_EQ(head.name, whole.name);
    EXPECT_EQ(head.samples, nullptr);
  };
  same(csv, Value::object({{"header", true}}));
  same(csv, Value::object({{"header", true}, {"transpose", true}}));
  same(npy, Value::table());
  const auto broken = file_with("broken.csv", "1,2\n3,4\nfive,6\n");
  const Value options = Value::object({{"header", false}});
  EXPECT_EQ(outline_stream(broken, options).format.describe(), "{2} x f64, items");
  EXPECT_THAT(message_of([&] { open_stream(broken, options); }), HasSubstr("line 3"));
  EXPECT_THAT(message_of([&] { outline_stream(csv, Value::object({{"header", false}})); }), HasSubstr("line 1"));
  PERCEPT_NEED_DATA(mat, "bci/contdata95/contdata95.mat");
  same(mat, Value::object({{"variable", "Y"}}));
  same(mat, Value::object({{"variable", "Y"}, {"transpose", true}}));
}

TEST(Open, AStoreStatesItsOwnFormat) {
  const auto file = testing::temporary_folder() / "r.percept";
  Recording r;
  r.name = "rec";
  r.streams.push_back(memory_stream("a", Eigen::MatrixXd::Ones(2, 5), 10));
  r.streams.push_back(memory_stream("b", Eigen::MatrixXd::Zero(1, 5), 20));
  r.tables.push_back({"item", {{"age", {3, std::nan("")}, {}}, {"site", {}, {"x", ""}}}});
  write_store(file, r);
  EXPECT_EQ(open_stream(file, Value::object({{"variable", "b"}})).format.rate_hz, 20);
  EXPECT_EQ(open_recording(file).streams.size(), 2U);
  EXPECT_THAT(message_of<ConfigError>([&] { open_stream(file); }), HasSubstr("one of the recording's streams: a, b"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                open_stream(file, Value::object({{"rate_hz", 1}}));
              }),
              HasSubstr("states its own"));
  const Value d = describe_file(file);
  EXPECT_EQ(d.at("contents").as_array()[0].at("max").as_number(), 1);
  EXPECT_EQ(d.at("contents").as_array()[1].at("rate_hz").as_number(), 20);
  EXPECT_EQ(d.at("tables").as_array()[0].at("columns").as_array()[0].at("missing").as_integer(), 1);
  check_file(file);
}

TEST(Open, NamesWhatIsWrong) {
  const auto csv = file_with("m.csv", "1,2\n3,4\n");
  const auto refused = [&](Value options) {
    return message_of<ConfigError>([&] { open_stream(csv, options, "a.toml:3: input"); });
  };
  EXPECT_THAT(refused(Value::table()), HasSubstr("a.toml:3: input.header: expected true or false for"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"rate_Hz", 3}})), HasSubstr("did you mean 'rate_hz'?"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"rate_hz", 0}})),
              HasSubstr("a.toml:3: input.rate_hz = 0: expected a rate above 0 Hz"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"rate_hz", -1}})), HasSubstr("input.rate_hz = -1"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"start_s", 1}})),
              HasSubstr("input.start_s: expected rate_hz beside it"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"rate_hz", "fast"}})), HasSubstr("input.rate_hz"));
  EXPECT_THAT(refused(Value::object({{"header", false}, {"delimiter", ";;"}})), HasSubstr("input.delimiter"));
  EXPECT_THAT(message_of([] { open_stream(file_with("x.xyz", "1")); }), HasSubstr("extension: expected .csv"));
  EXPECT_THAT(message_of([] { describe_file("/nowhere/x.npy"); }), HasSubstr("found No such file"));
  EXPECT_THAT(message_of([] { check_file(testing::temporary_folder() / "none.percept"); }),
              HasSubstr("found No such file"));
}

TEST(Open, InfoCountsWhatIsMissing) {
  const Value d = describe_file(file_with("m.csv", "a,b\n1,nan\n3,-4.5\n"));
  const Value& item = d.at("contents").as_array()[0];
  EXPECT_TRUE(d.at("header").as_bool());
  EXPECT_EQ(item.at("missing").as_integer(), 1);
  EXPECT_EQ(item.at("min").as_number(), -4.5);
  EXPECT_EQ(item.at("max").as_number(), 3);
  const Value people = describe_file(file_with("people.tsv", "id\tsite\n1\tA\n2\tn/a\n"));
  EXPECT_EQ(people.at("contents").as_array()[0].at("columns").as_array()[1].at("missing").as_integer(), 1);
  EXPECT_THAT(message_of([] { check_file(file_with("bad.csv", "1,2\n3,x\n")); }), HasSubstr("line 2, column 2"));
}

}  // namespace
}  // namespace percept::io
