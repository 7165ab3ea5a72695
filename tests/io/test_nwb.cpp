#include "io/nwb.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <limits>

#include "core/error.h"
#include "io/open.h"
#include "tests/io/helpers.h"

namespace percept::io_test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A file as any reader sees it, without the code under test.
class Hdf5Look {
 public:
  explicit Hdf5Look(const fs::path& file) : file_(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT)) {}
  ~Hdf5Look() { H5Fclose(file_); }
  Hdf5Look(const Hdf5Look&) = delete;
  Hdf5Look& operator=(const Hdf5Look&) = delete;

  bool has(const std::string& path) const { return H5Oexists_by_name(file_, path.c_str(), H5P_DEFAULT) > 0; }
  std::vector<std::string> texts(const std::string& path, const char* attribute = nullptr) const {
    const hid_t object = H5Oopen(file_, path.c_str(), H5P_DEFAULT);
    const hid_t from = attribute ? H5Aopen(object, attribute, H5P_DEFAULT) : object;
    const hid_t space = attribute ? H5Aget_space(from) : H5Dget_space(from);
    const hid_t type = attribute ? H5Aget_type(from) : H5Dget_type(from);
    EXPECT_GT(H5Tis_variable_str(type), 0) << path;
    EXPECT_EQ(H5Tget_cset(type), H5T_CSET_UTF8) << path;
    std::vector<char*> pointers(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    if (attribute) H5Aread(from, type, pointers.data());
    else H5Dread(from, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data());
    std::vector<std::string> all(pointers.begin(), pointers.end());
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
    H5Tclose(type);
    H5Sclose(space);
    if (attribute) H5Aclose(from);
    H5Oclose(object);
    return all;
  }
  std::string text(const std::string& path, const char* attribute = nullptr) const {
    const auto all = texts(path, attribute);
    return all.size() == 1 ? all[0] : "";
  }
  std::string type(const std::string& path) const {
    EXPECT_EQ(text(path, "object_id").size(), 36u) << path;
    return text(path, "namespace") + "/" + text(path, "neurodata_type");
  }
  double number(const std::string& path, const char* attribute) const {
    double v = std::numeric_limits<double>::quiet_NaN();
    const hid_t object = H5Oopen(file_, path.c_str(), H5P_DEFAULT), from = H5Aopen(object, attribute, H5P_DEFAULT);
    H5Aread(from, H5T_NATIVE_DOUBLE, &v);
    H5Aclose(from);
    H5Oclose(object);
    return v;
  }
  std::vector<double> numbers(const std::string& path, std::vector<hsize_t>* shape = nullptr) const {
    const hid_t set = H5Dopen2(file_, path.c_str(), H5P_DEFAULT), space = H5Dget_space(set);
    std::vector<double> all(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data());
    if (shape) {
      shape->resize(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
      H5Sget_simple_extent_dims(space, shape->data(), nullptr);
    }
    H5Sclose(space);
    H5Dclose(set);
    return all;
  }
  /// The object that a reference points to: its path.
  std::string referred(const std::string& path, const char* attribute = nullptr) const {
    const hid_t object = H5Oopen(file_, path.c_str(), H5P_DEFAULT);
    hobj_ref_t references[16] = {};
    if (attribute) {
      const hid_t from = H5Aopen(object, attribute, H5P_DEFAULT);
      H5Aread(from, H5T_STD_REF_OBJ, references);
      H5Aclose(from);
    } else {
      H5Dread(object, H5T_STD_REF_OBJ, H5S_ALL, H5S_ALL, H5P_DEFAULT, references);
    }
    const hid_t to = H5Rdereference2(object, H5P_DEFAULT, H5R_OBJECT, references);
    char name[256] = {};
    H5Iget_name(to, name, sizeof name);
    H5Oclose(to);
    H5Oclose(object);
    return name;
  }

 private:
  hid_t file_;
};

Event told(double onset_s, const char* label, double value = 0, int row = -1, double duration_s = 0) {
  Event e;
  e.onset_s = onset_s;
  e.duration_s = duration_s;
  e.value = value;
  e.label = Label::of(label);
  e.row = row;
  return e;
}

/// Frame k of row i holds k + i / 1000; a live session's streams, events and clock.
Recording session(Index frames = 50) {
  const auto made = [frames](Index rows) {
    Eigen::MatrixXd m(rows, frames);
    for (Index k = 0; k < frames; ++k)
      for (Index i = 0; i < rows; ++i) m(i, k) = static_cast<double>(k) + static_cast<double>(i) / 1000;
    return m;
  };
  Recording r;
  r.name = "monday";
  Eigen::MatrixXd counts = made(3);
  counts.col(7).setConstant(std::numeric_limits<double>::quiet_NaN());
  r.streams.push_back(memory_stream("counts", counts, 50.0, 0.01, {"u1", "u2", "u3"}));
  r.streams.push_back(memory_stream("array/1", made(2), 1000.0, 0, {"e1", "e2"}, "uV"));
  r.streams.back().format.parts[0].rows[1].position = {{0.001, 0.002, -0.003}};
  Stream live = memory_stream("live_dkf", made(6), 50.0, 0.01);
  Part mean, covariance;
  mean.name = "mean";
  mean.shape = {2};
  mean.unit = "m/s";
  covariance.name = "covariance";
  covariance.shape = {2, 2};
  live.format.parts = {mean, covariance};
  r.streams.push_back(live);
  r.events = {told(0.1, "target_3", 3, -1, 0.5),
              told(0.15, "gap", 1, -1, 0.02),
              told(0.2, "mask", 0, 2),
              told(0.3, "hold", 2),
              told(0.35, "hold", 6),
              told(0.4, "unmask", 0, 2),
              told(0.5, "release"),
              told(0.6, "mask", 0, 1)};
  r.tables.push_back({"clock_counts", {{"at_s", {1, 2}, {}}, {"drift", {0, 1e-5}, {}}}});
  return r;
}
io::NwbOptions nwb_options() {
  io::NwbOptions o;
  o.identifier = "monday 1";
  o.description = "A test.";
  o.start = "2026-11-29T12:00:00Z";
  o.script = "{}";
  o.script_name = "a.toml";
  o.notes = "none";
  return o;
}
fs::path nwb_file() { return testing::temporary_folder() / "s.nwb"; }

TEST(Nwb, HasTheLayoutThatReadersExpect) {
  const fs::path file = nwb_file();
  io::write_nwb(session(), file, nwb_options());
  const Hdf5Look f(file);
  EXPECT_EQ(f.type("/"), "core/NWBFile");
  EXPECT_EQ(f.text("/", "nwb_version"), "2.7.0");
  EXPECT_EQ(f.text("/identifier"), "monday 1");
  EXPECT_EQ(f.text("/session_description"), "A test.");
  EXPECT_EQ(f.text("/session_start_time"), "2026-11-29T12:00:00Z");
  EXPECT_EQ(f.text("/timestamps_reference_time"), "2026-11-29T12:00:00Z");
  EXPECT_EQ(f.texts("/file_create_date").size(), 1u);
  for (const char* group : {"/analysis", "/stimulus/presentation", "/stimulus/templates"}) EXPECT_TRUE(f.has(group));
  EXPECT_EQ(f.text("/general/source_script", "file_name"), "a.toml");

  EXPECT_EQ(f.type("/acquisition/counts"), "core/TimeSeries");
  EXPECT_EQ(f.text("/acquisition/counts", "comments"), R"(rows: ["u1","u2","u3"])");
  EXPECT_EQ(f.text("/acquisition/counts/data", "unit"), "1");
  EXPECT_EQ(f.number("/acquisition/counts/data", "conversion"), 1);
  EXPECT_EQ(f.numbers("/acquisition/counts/starting_time")[0], 0.01);
  EXPECT_EQ(f.number("/acquisition/counts/starting_time", "rate"), 50);
  EXPECT_EQ(f.text("/acquisition/counts/starting_time", "unit"), "seconds");

  std::vector<hsize_t> shape;
  EXPECT_EQ(f.type("/processing/decoded"), "core/ProcessingModule");
  EXPECT_EQ(f.type("/processing/decoded/dkf_mean"), "core/TimeSeries");
  EXPECT_EQ(f.text("/processing/decoded/dkf_mean/data", "unit"), "m/s");
  const auto mean = f.numbers("/processing/decoded/dkf_mean/data", &shape);
  EXPECT_THAT(shape, ElementsAre(50, 2));
  EXPECT_EQ(mean[2 * 20 + 1], 20.001);
  const auto covariance = f.numbers("/processing/decoded/dkf_covariance/data", &shape);
  EXPECT_THAT(shape, ElementsAre(50, 2, 2));
  EXPECT_EQ(covariance[4 * 20 + 3], 20.005);
  EXPECT_EQ(f.type("/processing/clocks/clock_counts"), "hdmf-common/DynamicTable");
  EXPECT_THAT(f.texts("/processing/clocks/clock_counts", "colnames"), ElementsAre("at_s", "drift"));
  EXPECT_THAT(f.numbers("/processing/clocks/clock_counts/drift"), ElementsAre(0, 1e-5));
}

TEST(Nwb, VoltagesHaveElectrodes) {
  const fs::path file = nwb_file();
  io::write_nwb(session(), file, nwb_options());
  const Hdf5Look f(file);
  const std::string series = "/acquisition/array_1", table = "/general/extracellular_ephys/electrodes";
  EXPECT_EQ(f.type(series), "core/ElectricalSeries");
  EXPECT_EQ(f.text(series + "/data", "unit"), "volts");
  EXPECT_EQ(f.number(series + "/data", "conversion"), 1e-6);
  EXPECT_EQ(f.type(series + "/electrodes"), "hdmf-common/DynamicTableRegion");
  EXPECT_THAT(f.numbers(series + "/electrodes"), ElementsAre(0, 1));
  EXPECT_EQ(f.referred(series + "/electrodes", "table"), table);
  EXPECT_EQ(f.type(table), "hdmf-common/DynamicTable");
  EXPECT_EQ(f.type(table + "/id"), "hdmf-common/ElementIdentifiers");
  EXPECT_THAT(f.texts(table, "colnames"),
              ElementsAre("x", "y", "z", "location", "group", "group_name", "channel_name", "stream"));
  EXPECT_THAT(f.texts(table + "/channel_name"), ElementsAre("e1", "e2"));
  EXPECT_EQ(f.numbers(table + "/z")[1], -3000) << "micrometres";
  EXPECT_TRUE(std::isnan(f.numbers(table + "/z")[0]));
  EXPECT_EQ(f.type(f.referred(table + "/group")), "core/ElectrodeGroup");
  EXPECT_EQ(f.type(f.referred(table + "/group") + "/device"), "core/Device");

  Recording plain = session();
  plain.streams.erase(plain.streams.begin() + 1);
  io::write_nwb(plain, file, nwb_options());
  EXPECT_FALSE(Hdf5Look(file).has("/general/extracellular_ephys"));
}

// what lasts ends where it was undone: a mask at its unmask, a hold at the next reason or its release, else at the end
TEST(Nwb, WhatHappenedBecomesIntervals) {
  const fs::path file = nwb_file();
  io::write_nwb(session(), file, nwb_options());
  const Hdf5Look f(file);
  EXPECT_EQ(f.type("/intervals/events"), "core/TimeIntervals");
  EXPECT_THAT(f.texts("/intervals/events/label"), ElementsAre("target_3"));
  EXPECT_THAT(f.numbers("/intervals/events/stop_time"), ElementsAre(0.6));
  EXPECT_THAT(f.numbers("/intervals/gaps/value"), ElementsAre(1));
  EXPECT_THAT(f.numbers("/intervals/masks/row"), ElementsAre(2, 1));
  EXPECT_THAT(f.numbers("/intervals/masks/start_time"), ElementsAre(0.2, 0.6));
  EXPECT_THAT(f.numbers("/intervals/masks/stop_time"), ElementsAre(0.4, 0.01 + 50 / 50.0));
  EXPECT_THAT(f.numbers("/intervals/holds/value"), ElementsAre(2, 6));
  EXPECT_THAT(f.numbers("/intervals/holds/stop_time"), ElementsAre(0.35, 0.5));
}

// several blocks, chunks that do not divide the frames, and percept's own reader of HDF5
TEST(Nwb, IsReadBackAsItWas) {
  const Recording r = session(90000);
  const fs::path file = nwb_file();
  double last = 0;
  auto options = nwb_options();
  options.progress = [&](double share) {
    EXPECT_GE(share, last);
    last = share;
  };
  io::write_nwb(r, file, options);
  EXPECT_EQ(last, 1);
  const auto back = [&](const char* set, const Stream& s) {
    return io::open_stream(
        file, Value::object({{"variable", set}, {"rate_hz", s.format.rate_hz}, {"start_s", s.format.start_s}}));
  };
  const Stream counts = back("/acquisition/counts/data", r.streams[0]);
  EXPECT_TRUE(same(counts.matrix(), r.streams[0].matrix()));
  EXPECT_EQ(counts.format.scalar, r.streams[0].format.scalar);
  EXPECT_TRUE(same(back("/acquisition/array_1/data", r.streams[1]).matrix(), r.streams[1].matrix()));
  EXPECT_TRUE(same(back("/processing/decoded/dkf_mean/data", r.streams[2]).matrix(), r.streams[2].matrix().topRows(2)));
}

TEST(Nwb, SaysWhatIsWrongAndLeavesNoHalfFile) {
  const fs::path file = nwb_file();
  const auto refusal = [&](const std::function<void(Recording&, io::NwbOptions&)>& change, const fs::path& to) {
    Recording r = session();
    auto options = nwb_options();
    change(r, options);
    return message_of([&] { io::write_nwb(r, to, options); });
  };
  EXPECT_THAT(refusal([](auto&, auto& o) { o.start = "yesterday"; }, file), HasSubstr("a time with its zone"));
  EXPECT_THAT(refusal([](auto&, auto& o) { o.start = "2026-11-29T12:00:00"; }, file),
              HasSubstr("a time with its zone"));
  EXPECT_THAT(refusal([](auto&, auto& o) { o.identifier = ""; }, file), HasSubstr("a name that no other session has"));
  EXPECT_THAT(refusal(
                  [](auto& r, auto&) {
                    r.streams[0].format.axis = Axis::item;
                    r.streams[0].format.rate_hz = 0;
                  },
                  file),
              AllOf(HasSubstr("counts"), HasSubstr("a stream with a clock")));
  EXPECT_THAT(refusal([](auto& r, auto&) { r.streams[0].name = "array_1"; }, file),
              HasSubstr("another name than the stream before it"));
  EXPECT_THAT(refusal([](auto&, auto& o) { o.cancelled = [] { return true; }; }, file), HasSubstr("interrupted"));
  EXPECT_TRUE(fs::is_empty(file.parent_path()));
  const fs::path no_folder = file_with("file", "");
  EXPECT_THAT(refusal([](auto&, auto&) {}, no_folder / "s.nwb"), HasSubstr("file"));
  // one that was there stays when a new one cannot be written
  io::write_nwb(session(), file, nwb_options());
  const auto before = bytes_of_file(file);
  refusal([](auto&, auto& o) { o.cancelled = [] { return true; }; }, file);
  EXPECT_EQ(bytes_of_file(file), before);
}

}  // namespace
}  // namespace percept::io_test
