#include <gmock/gmock.h>
#include <hdf5.h>
#include <matio.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "io/hdf5.h"
#include "io/mat.h"
#include "tests/io/helpers.h"

namespace percept::io {
namespace {
namespace fs = std::filesystem;
using io_test::bytes_of_file;
using io_test::file_with;
using io_test::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// before the first call of this file into libhdf5, as io/ does before its own
[[maybe_unused]] const herr_t quiet_end = H5dont_atexit();

template <class T>
void add_set(hid_t file, const char* name, hid_t type, std::vector<hsize_t> shape, const std::vector<T>& values,
             std::vector<hsize_t> chunk = {}) {
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
  if (!chunk.empty()) {
    H5Pset_chunk(plist, static_cast<int>(chunk.size()), chunk.data());
    H5Pset_deflate(plist, 4);
  }
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
  ASSERT_GE(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(set);
  H5Pclose(plist);
  H5Sclose(space);
}

/// As another program might write it, in the oldest format.
fs::path foreign_file() {
  const auto path = testing::temporary_folder() / "f.h5";
  const hid_t f = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Gclose(H5Gcreate2(f, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  std::vector<std::int16_t> counts(300 * 7);
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<std::int16_t>(i);
  add_set(f, "g/counts", H5T_NATIVE_INT16, {300, 7}, counts, {32, 3});
  add_set<double>(f, "line", H5T_NATIVE_DOUBLE, {4}, {1, 2, 3, 4});
  add_set<float>(f, "cube", H5T_NATIVE_FLOAT, {2, 1, 2}, {1, 2, 3, 4});
  add_set<std::int64_t>(f, "large", H5T_NATIVE_INT64, {2}, {1, (std::int64_t{1} << 53) + 1});
  add_set<std::uint64_t>(f, "ularge", H5T_NATIVE_UINT64, {2}, {1, ~std::uint64_t{0}});
  add_set<std::int64_t>(f, "negative", H5T_NATIVE_INT64, {2}, {-5, 7});
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, H5T_VARIABLE);
  add_set<const char*>(f, "names", text, {2}, {"a", "bc"});
  H5Tclose(text);
  H5Fclose(f);
  return path;
}

TEST(Hdf5, ListsAndReadsBlockByBlock) {
  const auto file = foreign_file();
  const auto all = list_hdf5(file);
  std::string text;
  for (const auto& d : all) text += d.path + " " + d.type + (d.readable ? " yes\n" : " no\n");
  EXPECT_EQ(text,
            "/cube f32 no\n/g/counts i16 yes\n/large i64 yes\n/line f64 yes\n/names text no\n/negative i64 "
            "yes\n/ularge u64 yes\n");
  EXPECT_THAT(all[1].shape, ElementsAre(300, 7));
  EXPECT_EQ(all[1].scalar, Scalar::f32);
  Eigen::MatrixXd want(7, 300);
  for (Index i = 0; i < want.size(); ++i) want.data()[i] = static_cast<double>(i);
  for (const Index n : {1, 7, 299, 300}) {
    EXPECT_EQ(io_test::in_blocks(*open_hdf5(file, "g/counts"), 7, n), want) << n;
    EXPECT_EQ(io_test::in_blocks(*open_hdf5(file, "/g/counts", true), 300, n), want.transpose()) << n;
  }
  Eigen::MatrixXf apart = Eigen::MatrixXf::Constant(9, 3, -1);  // frames that do not touch
  open_hdf5(file, "g/counts")->read(10, MutableFrames(apart.data(), Scalar::f32, 7, 3, 9));
  EXPECT_EQ(apart.topRows(7).cast<double>(), want.middleCols(10, 3));
  EXPECT_EQ(apart.bottomRows(2).maxCoeff(), -1);
  EXPECT_EQ(io_test::in_blocks(*open_hdf5(file, "line"), 1, 3), Eigen::RowVector4d(1, 2, 3, 4));
  EXPECT_EQ(io_test::in_blocks(*open_hdf5(file, "negative"), 1, 3), Eigen::RowVector2d(-5, 7));
}

TEST(Hdf5, ReadsRealFiles) {
  fs::path worm, fish;
  PERCEPT_NEED_DATA(worm, "calcium/celegans_flavell/2022-01-16-01.h5");
  PERCEPT_NEED_DATA(fish, "calcium/zebrafish_thunder/fish_series_t240_z2_87x76.h5");
  int readable = 0;
  for (const auto& file : {worm, fish})
    for (const auto& d : list_hdf5(file)) {
      if (!d.readable) continue;
      ++readable;
      const auto source = open_hdf5(file, d.path);
      const Index rows = d.shape.size() == 1 ? 1 : d.shape[1];
      EXPECT_TRUE(io_test::same(io_test::in_blocks(*source, rows, 100), io_test::in_blocks(*source, rows, d.shape[0])))
          << d.path;
    }
  EXPECT_GT(readable, 2);
}

TEST(Hdf5, NamesWhatIsWrong) {
  const auto file = foreign_file();
  EXPECT_THAT(message_of([&] { open_hdf5(file, "lines"); }),
              HasSubstr("data set: expected one of /cube, /g/counts, /large, /line, /names, /negative, /ularge, found "
                        "'lines' (did you mean '/line'?)"));
  EXPECT_THAT(message_of([&] { open_hdf5(file, "cube"); }),
              HasSubstr("/cube: expected numbers in one or two dimensions"));
  EXPECT_THAT(message_of([&] { open_hdf5(file, "names"); }), HasSubstr("found text of shape (2)"));
  for (const char* set : {"large", "ularge"})
    EXPECT_THAT(message_of([&] { io_test::in_blocks(*open_hdf5(file, set), 1, 2); }), HasSubstr("2^53"));
  EXPECT_THAT(message_of([] { list_hdf5("/nowhere/f.h5"); }), HasSubstr("found No such file"));
  EXPECT_THAT(message_of([] { list_hdf5("/tmp"); }), HasSubstr("found a directory"));
  EXPECT_THAT(message_of([] { list_hdf5(file_with("x.h5", "1,2,3")); }),
              HasSubstr("expected an HDF5 file, found another kind of file"));
  const std::string whole = bytes_of_file(file);
  EXPECT_THAT(message_of([&] { list_hdf5(file_with("cut.h5", whole.substr(0, whole.size() / 2))); }),
              HasSubstr("truncated"));
}

TEST(Hdf5, DoesNotFollowLinksAndDataOutOfTheFile) {
  const auto secret = file_with("secret", std::string(80, 'x'));
  const auto path = testing::temporary_folder() / "f.h5";
  const hid_t f = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external(foreign_file().c_str(), "/line", f, "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t n = 10;
  const hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &n, nullptr);
  H5Pset_external(plist, secret.c_str(), 0, 80);
  H5Dclose(H5Dcreate2(f, "outside", H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
  H5Pclose(plist);
  H5Sclose(space);
  H5Fclose(f);
  ASSERT_EQ(list_hdf5(path).size(), 1U);
  EXPECT_FALSE(list_hdf5(path)[0].readable);
  EXPECT_THAT(message_of([&] { open_hdf5(path, "elsewhere"); }), HasSubstr("found 'elsewhere'"));
  EXPECT_THAT(message_of([&] { open_hdf5(path, "outside"); }), HasSubstr("held in this file"));
}

/// While it lives, another program stands in for percept-probe.
class StandIn {
 public:
  explicit StandIn(const std::string& script) {
    const auto program = file_with("probe", "#!/bin/sh\n" + script + "\n");
    fs::permissions(program, fs::perms::owner_all);
    setenv("PERCEPT_PROBE", program.c_str(), 1);
  }
  ~StandIn() { unsetenv("PERCEPT_PROBE"); }
};

TEST(Probe, ItsDeathTimeOutAndComplaintAreDataErrors) {
  const auto file = foreign_file();
  {
    const StandIn crash("kill -SEGV $$");
    EXPECT_THAT(message_of([&] { probe_foreign_hdf5(file); }),
                HasSubstr("f.h5: expected an HDF5 file that can be read safely, found one that broke the library in a "
                          "child process (signal 11)"));
  }
  {
    const StandIn hang("exec sleep 60");
    EXPECT_THAT(message_of([&] { probe_foreign_hdf5(file, 0.2); }), HasSubstr("did not finish in 0 s"));
  }
  {
    const StandIn says(R"(printf '/a/b\0good data\0bad data'; exit 3)");
    EXPECT_THAT(message_of([&] { probe_foreign_hdf5(file); }),
                HasSubstr("f.h5: /a/b: expected good data, found bad data"));
  }
  {
    const StandIn gone("exit 127");
    EXPECT_THAT(message_of([&] { probe_foreign_mat(file); }), HasSubstr("gave up on (exit 127)"));
  }
  setenv("PERCEPT_PROBE", "/nowhere/probe", 1);
  EXPECT_THAT(message_of<Error>([&] { probe_foreign_hdf5(file); }), HasSubstr("cannot start /nowhere/probe"));
  unsetenv("PERCEPT_PROBE");
  probe_foreign_hdf5(file);
  setenv("PERCEPT_PROBE", "/nowhere/probe", 1);
  probe_foreign_hdf5(file);  // passed once: not walked again
  unsetenv("PERCEPT_PROBE");
}

/// Every readable part of a mutated file, or a DataError.
template <class Use>
int survive(const std::string& whole, const std::string& name, int times, const Use& use) {
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < times; ++i) {
    std::string bytes = whole;
    for (int flips = 1 + i % 4; flips > 0; --flips) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 10 == 0) bytes.resize(random() % bytes.size());
    const auto file = file_with(name, bytes);
    try {
      use(file);
    } catch (const DataError& e) {
      EXPECT_THAT(e.what(), HasSubstr(file.string()));
      ++refused;
    }
    fs::remove(file);
  }
  return refused;
}

TEST(Hdf5, BrokenFilesAreErrorsNeverCrashes) {
  std::string whole = bytes_of_file(foreign_file());
  const int refused = survive(whole, "m.h5", 100, [](const fs::path& file) {
    for (const auto& d : list_hdf5(file))
      if (d.readable && d.shape[0] < 10000) {
        Eigen::MatrixXd m(d.shape.size() == 1 ? 1 : d.shape[1], 1);
        open_hdf5(file, d.path)->read(0, MutableFrames(m.data(), Scalar::f64, m.rows(), 1, m.rows()));
      }
  });
  EXPECT_GT(refused, 10);
}

void add_variable(mat_t* mat, const char* name, matio_classes c, matio_types t, std::vector<std::size_t> shape,
                  void* data, int flags = 0) {
  matvar_t* v = Mat_VarCreate(name, c, t, static_cast<int>(shape.size()), shape.data(), data, flags);
  ASSERT_EQ(Mat_VarWrite(mat, v, MAT_COMPRESSION_ZLIB), 0);
  Mat_VarFree(v);
}

fs::path mat_file(mat_ft version) {
  const auto path = testing::temporary_folder() / "m.mat";
  mat_t* mat = Mat_CreateVer(path.c_str(), nullptr, version);
  double d[6] = {1, 2, 3, 4, 5, 6};
  std::int16_t i[6] = {1, 2, 3, 4, 5, -6};
  std::uint8_t u[2] = {0, 1};
  std::int64_t l[1] = {(std::int64_t{1} << 53) + 1};
  mat_complex_split_t z{d, d};
  add_variable(mat, "X", MAT_C_DOUBLE, MAT_T_DOUBLE, {3, 2}, d);
  add_variable(mat, "counts", MAT_C_INT16, MAT_T_INT16, {2, 3}, i);
  add_variable(mat, "good", MAT_C_UINT8, MAT_T_UINT8, {1, 2}, u, MAT_F_LOGICAL);
  add_variable(mat, "long", MAT_C_INT64, MAT_T_INT64, {1, 1}, l);
  add_variable(mat, "cube", MAT_C_DOUBLE, MAT_T_DOUBLE, {1, 2, 3}, d);
  add_variable(mat, "z", MAT_C_DOUBLE, MAT_T_DOUBLE, {3, 2}, &z, MAT_F_COMPLEX);
  std::size_t one[2] = {1, 1};
  matvar_t* inside[2] = {Mat_VarCreate(nullptr, MAT_C_DOUBLE, MAT_T_DOUBLE, 2, one, d, 0), nullptr};
  matvar_t* cell = Mat_VarCreate("c", MAT_C_CELL, MAT_T_CELL, 2, one, inside, 0);
  Mat_VarWrite(mat, cell, MAT_COMPRESSION_NONE);
  Mat_VarFree(cell);
  const char* fields[] = {"a"};
  matvar_t* s = Mat_VarCreateStruct("s", 2, one, fields, 1);
  Mat_VarWrite(mat, s, MAT_COMPRESSION_NONE);
  Mat_VarFree(s);
  Mat_Close(mat);
  return path;
}

class Mat : public ::testing::TestWithParam<mat_ft> {};

TEST_P(Mat, ListsAndReadsVariables) {
  const auto file = mat_file(GetParam());
  std::string text;
  for (const auto& v : list_mat(file)) text += v.name + " " + v.type + (v.readable ? " yes\n" : " no\n");
  for (const char* line : {"X double yes\n", "counts int16 yes\n", "good logical yes\n", "cube double no\n",
                           "z complex double no\n", "c cell no\n", "s struct no\n"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_EQ(read_mat(file, "X"), (Eigen::MatrixXd(3, 2) << 1, 4, 2, 5, 3, 6).finished());
  EXPECT_EQ(read_mat(file, "counts"), (Eigen::MatrixXd(2, 3) << 1, 3, 5, 2, 4, -6).finished());
  EXPECT_EQ(read_mat(file, "good"), Eigen::RowVector2d(0, 1));
}

TEST_P(Mat, NamesWhatIsWrong) {
  const auto file = mat_file(GetParam());
  EXPECT_THAT(message_of([&] { read_mat(file, "c"); }),
              HasSubstr("c: expected a real, full matrix of numbers with two dimensions, found cell of shape (1, 1)"));
  EXPECT_THAT(message_of([&] { read_mat(file, "s"); }), HasSubstr("found struct of shape"));
  EXPECT_THAT(message_of([&] { read_mat(file, "cube"); }), HasSubstr("found double of shape (1, 2, 3)"));
  EXPECT_THAT(message_of([&] { read_mat(file, "z"); }), HasSubstr("found complex double"));
  EXPECT_THAT(message_of([&] { read_mat(file, "long"); }), HasSubstr("2^53"));
  EXPECT_THAT(message_of([&] { read_mat(file, "count"); }), HasSubstr("found 'count' (did you mean 'counts'?)"));
  EXPECT_THAT(message_of([&] { read_mat(file); }), HasSubstr("variable: expected the name of one of"));
}

TEST_P(Mat, BrokenFilesAreErrorsNeverCrashes) {
  const std::string whole = bytes_of_file(mat_file(GetParam()));
  const int refused = survive(whole, "m.mat", 60, [](const fs::path& file) {
    for (const auto& v : list_mat(file))
      if (v.readable) read_mat(file, v.name);
  });
  EXPECT_GT(refused, 10);
}

INSTANTIATE_TEST_SUITE_P(Versions, Mat, ::testing::Values(MAT_FT_MAT5, MAT_FT_MAT73),
                         [](const auto& version) { return std::string(version.param == MAT_FT_MAT5 ? "V5" : "V73"); });

TEST(MatFile, ReadsARealRecording) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/contdata95/contdata95.mat");
  for (const auto& v : list_mat(file)) {
    SCOPED_TRACE(v.name);
    ASSERT_TRUE(v.readable);
    const Eigen::MatrixXd m = read_mat(file, v.name);
    EXPECT_EQ(m.rows(), v.shape[0]);
    EXPECT_EQ(m.cols(), v.shape[1]);
    EXPECT_TRUE(m.allFinite());
  }
  EXPECT_THAT(message_of([&] { read_mat(file, "y"); }),
              HasSubstr("contdata95.mat: variable: expected one of X, Y, found 'y'"));
}

TEST(MatFile, NamesWhatIsWrong) {
  EXPECT_THAT(message_of([] { list_mat("/nowhere/x.mat"); }),
              HasSubstr("/nowhere/x.mat: expected a readable file, found No such file"));
  EXPECT_THAT(message_of([] { list_mat("/tmp"); }), HasSubstr("found a directory"));
  EXPECT_THAT(message_of([] { list_mat(file_with("x.mat", "1,2")); }),
              HasSubstr("expected a MATLAB file of version 5 or 7.3, found a shorter file"));
  EXPECT_THAT(message_of([] { list_mat(file_with("x.mat", std::string(500, '1'))); }),
              HasSubstr("found another kind of file"));
  const std::string whole = bytes_of_file(mat_file(MAT_FT_MAT5));
  for (std::size_t n = 129; n < whole.size(); n += 41) {
    SCOPED_TRACE(n);
    try {  // a cut between two variables cannot be seen
      EXPECT_LT(list_mat(file_with("cut.mat", whole.substr(0, n))).size(), 8U);
    } catch (const DataError& e) {
      EXPECT_THAT(e.what(), HasSubstr("truncated"));
    }
  }
}

TEST(MatFile, ShapesThatAskForMemoryAreRefusedBeforeMatioSeesThem) {
  const auto path = testing::temporary_folder() / "m.mat";
  mat_t* mat = Mat_CreateVer(path.c_str(), nullptr, MAT_FT_MAT5);
  std::size_t one[2] = {1, 1};
  double d = 1;
  matvar_t* inside[2] = {Mat_VarCreate(nullptr, MAT_C_DOUBLE, MAT_T_DOUBLE, 2, one, &d, 0), nullptr};
  matvar_t* cell = Mat_VarCreate("c", MAT_C_CELL, MAT_T_CELL, 2, one, inside, 0);
  Mat_VarWrite(mat, cell, MAT_COMPRESSION_NONE);
  Mat_VarFree(cell);
  Mat_Close(mat);
  ASSERT_EQ(list_mat(path).size(), 1U);
  const std::string whole = bytes_of_file(path);
  const std::size_t shape = 128 + 8 + 16 + 8;  // behind the file's head, the tag, the flags and the shape's tag
  for (const std::size_t at : {shape, shape + 8 + 8 + 8 + 16 + 8}) {  // of the cell, of the number in it
    ASSERT_EQ(whole.substr(at, 8), std::string("\1\0\0\0\1\0\0\0", 8));
    std::string bytes = whole;
    bytes[at + 3] = 0x7f;
    EXPECT_THAT(message_of([&] { list_mat(file_with("m.mat", bytes)); }),
                HasSubstr("m.mat: byte 128: expected an undamaged variable, found a shape larger than its bytes hold"));
  }
}

}  // namespace
}  // namespace percept::io
