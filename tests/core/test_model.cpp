/// Models and their arrays: what is saved comes back to the bit, and broken files are refused by name.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/files.h"
#include "core/model.h"
#include "tests/core/support.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

Model some_model() {
  Model m;
  m.meta =
      Value::object({{"stage", "kalman"}, {"version", 2}, {"input_rows", Value(std::vector<std::string>{"u1", "u2"})}});
  m.set("A", noise(3, 4));
  m.set("offset", Eigen::MatrixXd(noise(5, 1)));
  m.set("gain", 0.1);
  m.set_f32("W", noise(2, 6).cast<float>());
  m.set("empty", Eigen::MatrixXd(0, 3));
  return m;
}

std::span<const std::byte> bytes_of_text(const std::string& s) { return std::as_bytes(std::span(s.data(), s.size())); }

/// A file with this header and so many bytes of arrays.
std::string file_of(const std::string& header, std::size_t data) {
  std::string s(8, '\0');
  const std::uint64_t n = header.size();
  std::memcpy(s.data(), &n, 8);
  return s + header + std::string(data, '\1');
}
std::string file_refusal(const std::string& file) {
  return message_of<DataError>([&] { parse_safetensors(bytes_of_text(file), "w.safetensors"); });
}
std::string entry(const std::string& shape, const std::string& offsets, const std::string& type = "F64") {
  return R"({"a":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(Safetensors, RoundTripKeepsEveryBit) {
  auto tensors = some_model().tensors();
  Tensor counts;
  counts.type = Tensor::Type::i64;
  counts.shape = {2, 1, 3};
  counts.data.assign(48, std::byte{0xfe});
  tensors["counts"] = counts;
  const auto text = format_safetensors(tensors);
  const auto again = parse_safetensors(bytes_of_text(text), "x");
  ASSERT_EQ(again.size(), tensors.size());
  for (auto& [name, t] : tensors) {
    EXPECT_EQ(again.at(name).shape, t.shape) << name;
    EXPECT_EQ(again.at(name).type, t.type) << name;
    EXPECT_EQ(again.at(name).data, t.data) << name;
  }
  EXPECT_EQ(format_safetensors(again), text);
  std::uint64_t header = 0;
  std::memcpy(&header, text.data(), 8);
  EXPECT_EQ(header % 8, 0u);  // arrays lie on a multiple of their size
}

TEST(Safetensors, HoldMatricesInCOrder) {
  Model m;
  m.set("m", (Eigen::MatrixXd(2, 2) << 1, 2, 3, 4).finished());
  std::vector<double> flat(4);
  std::memcpy(flat.data(), m.tensors().at("m").data.data(), 32);
  EXPECT_THAT(flat, ElementsAre(1, 2, 3, 4));
}

TEST(Safetensors, BytesComeLastSoThatNumbersStayAligned) {
  Model m;
  m.set_u8("a", Eigen::Matrix<std::uint8_t, 3, 1>(1, 2, 255));
  m.set("b", 0.5);
  const auto text = format_safetensors(m.tensors());
  EXPECT_EQ(text.substr(text.size() - 3), "\x01\x02\xff");
  Model again;
  again.tensors() = parse_safetensors(bytes_of_text(text), "x");
  EXPECT_EQ(again.vector("a"), Eigen::Vector3d(1, 2, 255));
  EXPECT_EQ(again.number("b"), 0.5);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const auto text = format_safetensors(some_model().tensors());
  for (std::size_t n = 0; n < text.size(); ++n)
    ASSERT_THROW(parse_safetensors(bytes_of_text(text.substr(0, n)), "x"), DataError) << n << " bytes";
}

TEST(Safetensors, SizesThatLieAreRefusedByName) {
  EXPECT_EQ(file_refusal("abc"), "w.safetensors: header: expected at least 8 bytes, found 3 bytes");
  EXPECT_EQ(file_refusal(std::string(8, '\xff')),
            "w.safetensors: header: expected a length of at most 0 bytes, found 18446744073709551615");
  EXPECT_EQ(file_refusal(file_of("[]", 0)), "w.safetensors: header: expected a JSON object, found array");
  EXPECT_THAT(file_refusal(file_of("{nonsense", 0)), HasSubstr("w.safetensors: header: byte"));
  EXPECT_EQ(file_refusal(file_of(entry("[2]", "[0,24]"), 16)),
            "w.safetensors: a.data_offsets: expected 16 bytes inside the 16 of the file, found [0,24]");
  EXPECT_EQ(file_refusal(file_of(entry("[2]", "[8,24]"), 16)),
            "w.safetensors: a.data_offsets: expected 16 bytes inside the 16 of the file, found [8,24]");
  EXPECT_THAT(file_refusal(file_of(entry("[2]", "[16,0]"), 16)), HasSubstr("a.data_offsets"));
  EXPECT_THAT(file_refusal(file_of(entry("[2]", "[-16,0]"), 16)), HasSubstr("a.data_offsets"));
  EXPECT_THAT(file_refusal(file_of(entry("[2]", "[0.5,16]"), 16)), HasSubstr("a.data_offsets"));
  EXPECT_EQ(file_refusal(file_of(entry("[3]", "[0,24]"), 16)),
            "w.safetensors: a.shape: expected an array inside the file, found [3]");
  // 2^61 * 8 = 2^64, which is 0 when it wraps
  EXPECT_THAT(file_refusal(file_of(entry("[2305843009213693952]", "[0,0]"), 16)), HasSubstr("a.shape"));
  EXPECT_THAT(file_refusal(file_of(entry("[4294967296,4294967296]", "[0,0]"), 16)), HasSubstr("a.shape"));
  EXPECT_THAT(file_refusal(file_of(entry("[-2]", "[0,16]"), 16)),
              HasSubstr("a.shape: expected integers of at least 0"));
  EXPECT_EQ(file_refusal(file_of(entry("[2]", "[0,16]", "F16"), 16)),
            "w.safetensors: a.dtype: expected U8, F32, F64 or I64, found F16");
  EXPECT_THAT(file_refusal(file_of(R"({"a":3})", 0)), HasSubstr("a: expected dtype, shape and two data_offsets"));
  const std::string remark = file_of(R"({"__metadata__":{"x":"y"}})", 0);
  EXPECT_TRUE(parse_safetensors(bytes_of_text(remark), "w.safetensors").empty());
}

TEST(Model, SavesAndLoads) {
  const auto folder = temporary_folder() / "model";
  const Model m = some_model();
  m.save(folder);
  const Model again = Model::load(folder);
  EXPECT_TRUE(again == m);
  EXPECT_EQ(again.digest(), m.digest());
  EXPECT_EQ(again.matrix("A"), noise(3, 4));
  EXPECT_EQ(again.number("gain"), 0.1);
  EXPECT_EQ(again.matrix("W"), Eigen::MatrixXd(noise(2, 6).cast<float>().cast<double>()));
  EXPECT_EQ(again.matrix("empty").cols(), 3);
  EXPECT_THAT(again.input_rows(), ElementsAre("u1", "u2"));
  m.save(folder);  // over the old one
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.parent_path()), fs::directory_iterator()), 1);
}

TEST(Model, ComparesAndDigestsTheContentNotTheOrderOfKeys) {
  Model a = some_model(), b = some_model();
  Value turned = Value::table();
  for (std::size_t i = a.meta.size(); i-- > 0;) turned[a.meta.as_table()[i].first] = a.meta.as_table()[i].second;
  b.meta = turned;
  EXPECT_TRUE(a == b);
  EXPECT_EQ(a.digest(), b.digest());
  b.tensors().at("A").data[5] ^= std::byte{1};
  EXPECT_FALSE(a == b);
  EXPECT_NE(a.digest(), b.digest());
  b = some_model();
  b.meta["version"] = 3;
  EXPECT_FALSE(a == b);
  EXPECT_NE(a.digest(), b.digest());
}

TEST(Model, AnArrayThatIsMissingOrOfAnotherShapeIsNamed) {
  const Model m = some_model();
  EXPECT_EQ(message_of<DataError>([&] { m.matrix("B"); }),
            "model of kalman: B: expected an array of that name, found none");
  EXPECT_EQ(message_of<DataError>([&] { m.matrix("A", 3, 5); }), "model of kalman: A: expected 3 x 5, found 3 x 4");
  EXPECT_THROW(m.vector("A"), DataError);
  EXPECT_THROW(m.number("offset"), DataError);
}

TEST(Model, RefusesAnotherFormatVersionAndFoldersThatAreNone) {
  const auto folder = temporary_folder();
  const auto model = folder / "m";
  some_model().save(model);
  const std::string json = read_file(model / "model.json");
  auto load = [&] { return message_of<DataError>([&] { Model::load(model); }); };
  Value meta = parse_json(json);
  meta["format_version"] = 99;
  write_atomic(model / "model.json", to_json(meta));
  EXPECT_EQ(load(), (model / "model.json").string() + ": format_version: expected 1, found 99");
  meta.erase("format_version");
  write_atomic(model / "model.json", to_json(meta));
  EXPECT_EQ(load(), (model / "model.json").string() + ": format_version: expected 1, found none");
  write_atomic(model / "model.json", "[1]");
  EXPECT_THAT(load(), HasSubstr("format_version: expected 1, found none"));
  write_atomic(model / "model.json", "{");
  EXPECT_THAT(load(), HasSubstr("model.json: byte"));
  write_atomic(model / "model.json", json);
  fs::remove(model / "weights.safetensors");
  EXPECT_THAT(load(), HasSubstr("weights.safetensors: expected a readable file"));
  EXPECT_EQ(
      message_of<DataError>([&] { Model::load(folder / "none"); }),
      (folder / "none").string() + ": expected a model folder (model.json and weights.safetensors), found nothing");
  EXPECT_THAT(message_of<DataError>([&] { Model::load(model / "model.json"); }), HasSubstr("found a file"));
}

TEST(MemoryData, GivesEveryFrameOnceInAnyOrderAndGathersThem) {
  TrainingMatrix t;
  t.x = noise(2, 100);
  t.y = noise(1, 100, 2);
  t.segment_starts = {0, 33, 90};
  const MemoryData data(time_format(2, 10), time_format(1, 10), t, 16);
  auto order = [&](std::optional<std::uint64_t> seed) {
    std::vector<std::int64_t> keys;
    data.pass(
        [&](const TrainingBlock& b) {
          EXPECT_LE(b.x.frames, 16);
          for (std::size_t k = 0; k < b.keys.size(); ++k) {
            EXPECT_EQ(b.x.as<double>().frame(static_cast<Index>(k))[1], t.x(1, b.keys[k]));
            EXPECT_EQ(b.segment, b.keys[k] < 33 ? 0 : b.keys[k] < 90 ? 1 : 2);
          }
          keys.insert(keys.end(), b.keys.begin(), b.keys.end());
        },
        seed);
    return keys;
  };
  auto rising = order(std::nullopt);
  EXPECT_TRUE(std::is_sorted(rising.begin(), rising.end()));
  auto shuffled = order(7);
  EXPECT_EQ(shuffled, order(7));
  EXPECT_NE(shuffled, order(8));
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, rising);
  const auto g = data.gather();
  EXPECT_EQ(g.x, t.x);
  EXPECT_EQ(g.y, t.y);
  EXPECT_THAT(g.segment_starts, ElementsAre(0, 33, 90));
  t.y = noise(1, 99);
  EXPECT_EQ(message_of<Error>([&] { MemoryData(time_format(2, 10), time_format(1, 10), t); }),
            "training data: 100 frames of input but 99 of target");
}

}  // namespace
}  // namespace percept::testing
