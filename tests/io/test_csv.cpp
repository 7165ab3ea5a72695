#include "io/csv.h"

#include <gmock/gmock.h>

#include <clocale>

#include "tests/io/helpers.h"

namespace percept::io {
namespace {
using io_test::file_with;
using io_test::message_of;
using ::testing::HasSubstr;

CsvOptions with_header(bool header) {
  CsvOptions o;
  o.header = header;
  return o;
}
Eigen::MatrixXd values(const std::string& text, bool header = false) {
  return read_csv(file_with("x.csv", text), with_header(header)).values;
}
std::string csv_refusal(const std::string& text, bool header = false) {
  return message_of([&] { values(text, header); });
}

TEST(Csv, ReadsARealRecordingAsAnotherReaderDoes) {
  std::filesystem::path x, all;
  PERCEPT_NEED_DATA(x, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(all, "bci/flint_run1/velocities_all12_sessions.csv");
  const Eigen::MatrixXd m = read_csv(x, with_header(false)).values;
  EXPECT_EQ(m.rows(), 10);
  EXPECT_EQ(m.transpose(), testing::read_reference(x));
  const CsvTable t = read_csv(all, with_header(true));
  EXPECT_THAT(t.names, ::testing::ElementsAre("session", "vx", "vy"));
  EXPECT_EQ(t.values.transpose(), testing::read_reference(all, 1));
  EXPECT_THAT(
      message_of([&] { read_csv(all, with_header(false)); }),
      HasSubstr("line 1, column 1: expected a number (a first line of names needs header = true), found 'session'"));
}

TEST(Csv, BlocksEqualTheWhole) {
  std::filesystem::path x;
  PERCEPT_NEED_DATA(x, "bci/flint_run1/x.csv");
  const Eigen::MatrixXd whole = read_csv(x, with_header(false)).values;
  const CsvStream s = open_csv(x, with_header(false));
  for (const Index n : {1, 37, 1024, 10007}) EXPECT_EQ(io_test::in_blocks(*s.samples, s.columns, n), whole) << n;
  for (const Index at : {5999, 0, 3000, 1023, 1024, 2048}) {  // out of order, across marks
    Eigen::VectorXf one(10);
    s.samples->read(at, MutableFrames(one.data(), Scalar::f32, 10, 1, 10));
    EXPECT_EQ(one, whole.col(at).cast<float>()) << at;
  }
  EXPECT_THAT(message_of([&] { io_test::in_blocks(*s.samples, 9, 10); }), HasSubstr("expected 10 rows"));
  double room[10];
  EXPECT_THAT(message_of([&] { s.samples->read(whole.cols(), MutableFrames(room, Scalar::f64, 10, 1, 10)); }),
              HasSubstr("in a range inside [0, "));
}

TEST(Csv, AcceptsWhatPeopleWrite) {
  const double nan = std::nan("");
  const Eigen::MatrixXd want = (Eigen::MatrixXd(2, 2) << 1, nan, -2.5e-3, 4).finished();
  for (const char* text : {"1,-2.5e-3\nnan,4\n", "1,-2.5e-3\nNaN,4", "1,-2.5e-3\r\n,4\r\n",
                           "\xEF\xBB\xBF"
                           "1,-2.5e-3\nNAN,4\n\n\n",
                           " 1 , -2.5e-3\t\nn/a,+4 \n", "1,-2.5e-3\n-nan,4.000\n"})
    EXPECT_TRUE(io_test::same(values(text), want)) << text;
  CsvOptions o = with_header(true);
  o.delimiter = ';';
  const CsvTable t = read_csv(file_with("x.csv", "\"a;b\";c\n1;2\n"), o);
  EXPECT_THAT(t.names, ::testing::ElementsAre("a;b", "c"));
  o.allow_inf = true;
  o.header = false;
  EXPECT_EQ(read_csv(file_with("x.csv", "inf;-Infinity\n"), o).values(1, 0), -HUGE_VAL);
}

TEST(Csv, IgnoresTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8"}) std::setlocale(LC_ALL, name);
  EXPECT_EQ(values("1.5\n")(0, 0), 1.5);
  std::setlocale(LC_ALL, before.c_str());
}

TEST(Csv, NamesWhatIsWrongAndWhere) {
  EXPECT_THAT(csv_refusal("1,2\n3\n"), HasSubstr("x.csv: line 2: expected 2 cells as in the lines before, found 1"));
  EXPECT_THAT(csv_refusal("1,2\n3,4,5\n"), HasSubstr("line 2: expected 2 cells as in the lines before, found 3"));
  EXPECT_THAT(csv_refusal("1,2\n3,4x\n"), HasSubstr("line 2, column 2: expected a number, found '4x'"));
  EXPECT_THAT(csv_refusal("1,2\n3,0x10\n"), HasSubstr("line 2, column 2: expected a number, found '0x10'"));
  EXPECT_THAT(csv_refusal("1,nano\n"), HasSubstr("line 1, column 2"));
  EXPECT_THAT(csv_refusal("1\ninf\n"),
              HasSubstr("line 2, column 1: expected a finite number (allow_inf = true lets it pass), found 'inf'"));
  EXPECT_THAT(csv_refusal("1\n1e999\n"),
              HasSubstr("line 2, column 1: expected a number in the range of a double, found '1e999'"));
  EXPECT_THAT(csv_refusal("1\n1,5\n"), HasSubstr("line 2"));
  EXPECT_THAT(csv_refusal("1\n\n2\n"), HasSubstr("line 2: expected numbers, found an empty line"));
  EXPECT_THAT(csv_refusal(std::string("1,2\n3,\0\n", 8)),
              HasSubstr("line 2, column 2: expected text, found a NUL byte"));
  EXPECT_THAT(csv_refusal(""), HasSubstr("expected at least one line of numbers, found an empty file"));
  EXPECT_THAT(csv_refusal("a,b\n", true), HasSubstr("expected at least one line of numbers, found only a header"));
  EXPECT_THAT(csv_refusal("a,b,c\n1,2\n", true), HasSubstr("line 2: expected 3 cells as in the header, found 2"));
  EXPECT_THAT(message_of([] { read_csv("/nowhere/x.csv", with_header(false)); }),
              HasSubstr("/nowhere/x.csv: expected a readable file, found No such file"));
  EXPECT_THAT(message_of([] { read_csv("/tmp", with_header(false)); }),
              HasSubstr("/tmp: expected a file, found a directory"));
  CsvOptions small = with_header(false);
  small.max_bytes = 3;
  EXPECT_THAT(message_of([&] { read_csv(file_with("x.csv", "1,2\n"), small); }),
              HasSubstr("size: expected at most 3 bytes, found 4 bytes"));
  EXPECT_THAT(message_of<ConfigError>([] { read_csv(file_with("x.csv", "1\n"), CsvOptions{}); }),
              HasSubstr("header: expected true or false"));
  CsvOptions dot = with_header(false);
  dot.delimiter = '.';
  EXPECT_THAT(message_of<ConfigError>([&] { read_csv(file_with("x.csv", "1\n"), dot); }), HasSubstr("delimiter = '.'"));
}

TEST(Csv, TableReadsQuotesAndMissingCells) {
  const Table t = read_csv_table(
      file_with("people.csv", "id,age,\"the \"\"site\"\"\"\r\n1,31,\"A, north\"\r\n2,n/a,\"two\nlines\"\r\n3,7,\r\n"),
      with_header(true));
  EXPECT_EQ(t.name, "people");
  ASSERT_EQ(t.columns.size(), 3U);
  EXPECT_EQ(t.columns[2].name, "the \"site\"");
  EXPECT_THAT(t.columns[2].text, ::testing::ElementsAre("A, north", "two\nlines", ""));
  EXPECT_FALSE(t.columns[1].is_text());
  EXPECT_TRUE(std::isnan(t.columns[1].numbers[1]));
  EXPECT_EQ(t.columns[1].numbers[2], 7);
  EXPECT_EQ(read_csv_table(file_with("x.csv", "a,1\n"), with_header(false)).columns[1].name, "2");
}

TEST(Csv, TableNamesWhatIsWrong) {
  const auto refused = [](const std::string& text) {
    return message_of([&] { read_csv_table(file_with("x.csv", text), with_header(true)); });
  };
  EXPECT_THAT(refused("a,b\n1,\"x\n2,3\n"),
              HasSubstr("line 2, column 2: expected a closing quote, found the end of the file"));
  EXPECT_THAT(refused("a,b\n1,\"x\"y\n"),
              HasSubstr("line 2, column 2: expected a delimiter after the closing quote, found 'y'"));
  EXPECT_THAT(refused("a,b\n1,\"x\n\"\n4\n"), HasSubstr("line 4: expected 2 cells as in the lines before, found 1"));
  EXPECT_THAT(refused("a,a\n1,2\n"), HasSubstr("line 1, column 2: expected column names that differ, found 'a' twice"));
  EXPECT_THAT(refused("a,b\n"), HasSubstr("expected at least one line below the header, found none"));
  EXPECT_THAT(refused(std::string("a,b\n1,x\0\n", 9)), HasSubstr("line 2, column 2: expected text, found a NUL byte"));
}

TEST(Csv, ReadsRealTables) {
  std::filesystem::path neurons;
  PERCEPT_NEED_DATA(neurons, "calcium/celegans_connectome/connectome_neurons.csv");
  const Table t = read_csv_table(neurons, with_header(true));
  EXPECT_GT(t.columns.size(), 1U);
  EXPECT_GT(t.columns[0].size(), 100U);
}

TEST(Csv, WrittenTablesComeBack) {
  Table t;
  t.columns.push_back({.name = "a,b", .numbers = {}, .text = {"x", "", "say \"hi\"\nthere", " spaced "}});
  t.columns.push_back({.name = "n", .numbers = {0.1, std::nan(""), -1e-310, 1.0 / 3}, .text = {}});
  const auto file = testing::temporary_folder() / "t.csv";
  write_csv(file, t);
  const Table back = read_csv_table(file, with_header(true));
  EXPECT_EQ(back.columns[0], t.columns[0]);
  EXPECT_EQ(back.columns[1].numbers[0], 0.1);
  EXPECT_TRUE(std::isnan(back.columns[1].numbers[1]));
  EXPECT_EQ(back.columns[1].numbers[2], -1e-310);
  EXPECT_EQ(back.columns[1].numbers[3], 1.0 / 3);
  t.columns[1].numbers.pop_back();
  EXPECT_THAT(message_of([&] { write_csv(file, t); }), HasSubstr("n: expected 4 rows as in the first column, found 3"));
  Table one;
  one.columns.push_back({.name = "only", .numbers = {1, std::nan(""), 3}, .text = {}});
  write_csv(file, one);
  EXPECT_EQ(read_csv_table(file, with_header(true)).columns[0].size(), 3U);
}

TEST(Csv, WrittenFramesComeBackBitByBit) {
  const auto file = testing::temporary_folder() / "f.csv";
  std::srand(1);
  Eigen::MatrixXd m = Eigen::MatrixXd::Random(3, 500);
  m(1, 7) = std::nan("");
  write_csv(file, ConstFrames(m.data(), Scalar::f64, 3, 500, 3), {"x", "y", "z"});
  EXPECT_TRUE(io_test::same(read_csv(file, with_header(true)).values, m));
  const Eigen::MatrixXf f = m.cast<float>();
  write_csv(file, ConstFrames(f.data(), Scalar::f32, 3, 500, 3));
  EXPECT_TRUE(io_test::same(read_csv(file, with_header(false)).values.cast<float>().cast<double>(), f.cast<double>()));
}

TEST(Csv, LongLinesAndManyLinesKeepTheirPlace) {
  std::string wide = "0";
  for (int i = 1; i < 400000; ++i) wide += "," + std::to_string(i);  // longer than a buffer
  const CsvStream s = open_csv(file_with("w.csv", wide + "\n" + wide + "\n"), with_header(false));
  const Eigen::MatrixXd m = io_test::in_blocks(*s.samples, s.columns, 1);
  EXPECT_EQ(m(399999, 1), 399999);
  std::string tall;
  for (int i = 0; i < 5000; ++i) tall += std::to_string(i) + "\r\n";
  const CsvStream t = open_csv(file_with("t.csv", "\xEF\xBB\xBFname\n" + tall), with_header(true));
  ASSERT_EQ(t.samples->frames(), 5000);
  double v = 0;
  for (const std::int64_t at : {0, 1023, 1024, 4999, 17}) {
    t.samples->read(at, MutableFrames(&v, Scalar::f64, 1, 1, 1));
    EXPECT_EQ(v, static_cast<double>(at));
  }
}

}  // namespace
}  // namespace percept::io
