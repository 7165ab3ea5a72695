#include "core/error.h"
#include "core/files.h"
#include "io/bids.h"
#include "tests/io/helpers.h"
#include "tests/io/nifti_bytes.h"

namespace percept::io_test {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Two subjects with two runs of one task, a derivative of the first; 4 volumes of 2 x 3 x 2 at 2.5 s.
class Bids : public ::testing::Test {
 protected:
  Bids() {
    write("dataset_description.json", R"({"Name": "Toy", "BIDSVersion": "1.8.0", "License": "CC0"})");
    write("participants.tsv", "participant_id\tage\nsub-01\t30\nsub-02\tn/a\n");
    write("task-look_bold.json", R"({"RepetitionTime": 2.5, "TaskName": "look", "Far": 1, "Both": "far"})");
    for (const std::string sub : {"01", "02"})
      for (const std::string run : {"1", "2"}) {
        const std::string stem = "sub-" + sub + "/func/sub-" + sub + "_task-look_run-" + run;
        write(stem + "_bold.nii.gz", gzip(image().bytes()));
        write(stem + "_events.tsv", "onset\tduration\ttrial_type\n5\t2.5\tface\n0\t2.5\thouse" + run + "\n");
      }
    const std::string derived = "derivatives/prep/sub-01/func/sub-01_task-look_run-1_";
    write(derived + "space-T1w_desc-preproc_bold.nii.gz", gzip(image().bytes()));
    write(derived + "desc-confounds_timeseries.tsv", "csf\tfd\n1\tn/a\n2\t0.1\n3\t0.2\n4\t0.3\n");
    NiftiBytes mask;
    mask.shape = {2, 3, 2};
    mask.samples(std::vector<std::int16_t>{1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1});
    write(derived + "space-T1w_desc-brain_mask.nii.gz", gzip(mask.bytes()));
  }
  static NiftiBytes image() {
    NiftiBytes n;
    n.samples(counted(48));
    return n;
  }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root / name).parent_path());
    write_atomic(root / name, text);
  }
  std::string refusal(const Value& options) const {
    return message_of([&] { io::open_bids(root, options); });
  }
  const Value first = Value::object({{"subject", "01"}, {"run", "1"}});
  const fs::path root = testing::temporary_folder();
};

TEST_F(Bids, NamesAreReadInPieces) {
  const auto f = io::parse_bids_name("derivatives/prep/sub-01/func/sub-01_task-look_run-1_desc-hp_bold.nii.gz");
  ASSERT_TRUE(f);
  EXPECT_EQ(f->suffix, "bold");
  EXPECT_EQ(f->extension, ".nii.gz");
  EXPECT_EQ(f->pipeline, "prep");
  EXPECT_EQ(f->entity("run"), "1");
  EXPECT_EQ(f->entity("ses"), "");
  EXPECT_EQ(f->entities.size(), 4u);
  for (const char* other : {"README", ".bidsignore", "sub-01_sub-02_bold.nii", "sub-_bold.nii", "sub-01__bold.nii",
                            "a b.nii", "sub-0/1_bold_.nii", "x_y_z.nii"})
    EXPECT_FALSE(io::parse_bids_name(other)) << other;
}

TEST_F(Bids, OneImageIsARecording) {
  const Recording r = io::open_bids(root, first);
  EXPECT_EQ(r.name, "sub-01_task-look_run-1");
  const Stream& s = r.stream("fmri", "test");
  EXPECT_EQ(s.frames(), 4);
  EXPECT_EQ(s.format.rate_hz, 0.4);
  EXPECT_EQ(s.matrix()(3, 1), 15);
  ASSERT_EQ(r.events.size(), 2u);
  EXPECT_EQ(r.events[0].label.text(), "house1") << "by rising onset";
  EXPECT_EQ(r.events[1].onset_s, 5);
  EXPECT_EQ(r.events[1].id, 1);
  EXPECT_EQ(r.meta.at("entities").at("task").as_string(), "look");
  EXPECT_EQ(r.meta.at("title").as_string(), "Toy");
  EXPECT_THAT(r.table("participants")->find("participant_id")->text, ElementsAre("sub-01", "sub-02"));
  std::vector<std::string> read;
  for (auto& [name, digest] : r.meta.at("input").as_table()) read.push_back(name);
  EXPECT_THAT(read,
              ElementsAre("sub-01/func/sub-01_task-look_run-1_bold.nii.gz",
                          "sub-01/func/sub-01_task-look_run-1_events.tsv", "participants.tsv", "task-look_bold.json"));
}

TEST_F(Bids, APipelineBringsMaskAndConfounds) {
  const Recording r = io::open_bids(root, Value::object({{"derivatives", "prep"}}));
  EXPECT_EQ(r.stream("fmri", "test").format.size(), 3) << "the brain mask is the default";
  const Stream& confounds = r.stream("confounds", "test");
  EXPECT_EQ(confounds.format.rate_hz, 0.4);
  EXPECT_EQ(confounds.format.start_s, r.streams[0].format.start_s);
  EXPECT_TRUE(std::isnan(confounds.matrix()(1, 0)));
  EXPECT_THAT(confounds.format.row_names(), ElementsAre("csf", "fd"));
  EXPECT_EQ(r.events.size(), 2u) << "those of the raw run";
  write("derivatives/prep/sub-01/func/sub-01_task-look_run-1_desc-confounds_timeseries.tsv", "csf\n1\n2\n");
  EXPECT_THAT(refusal(Value::object({{"derivatives", "prep"}})),
              HasSubstr("desc-confounds_timeseries.tsv: rows: expected 4, one a volume, found 2"));
}

// what a pipeline gives on its own has its timing in the header and its events elsewhere
TEST_F(Bids, ADerivativeDataSetNeedsNeitherSidecarNorEvents) {
  fs::remove(root / "task-look_bold.json");
  fs::remove(root / "sub-01/func/sub-01_task-look_run-1_events.tsv");
  EXPECT_EQ(io::describe_bids(root).at("problems").size(), 5u);  // 4 images without a time, one without events
  write("dataset_description.json", R"({"Name": "Toy", "BIDSVersion": "1.8.0", "DatasetType": "derivative"})");
  EXPECT_THAT(io::describe_bids(root).at("problems").as_array(), IsEmpty());
  const Recording r = io::open_bids(root, first);
  EXPECT_EQ(r.streams[0].format.rate_hz, 0.4) << "of the header";
  EXPECT_THAT(r.events, IsEmpty());
}

TEST_F(Bids, TheNearerSidecarStandsAbove) {
  write("sub-01/sub-01_task-look_bold.json", R"({"Both": "near", "Near": 2})");
  write("sub-01/func/sub-01_task-look_run-2_bold.json", R"({"Other": true})");
  const io::BidsFolder folder(root);
  for (auto& f : folder.files())
    if (f.path.filename() == "sub-01_task-look_run-1_bold.nii.gz" && f.pipeline.empty()) {
      const io::BidsSidecar s = folder.sidecar(f);
      EXPECT_EQ(s.values.at("Far").as_integer(), 1);
      EXPECT_EQ(s.values.at("Near").as_integer(), 2);
      EXPECT_EQ(s.values.at("Both").as_string(), "near");
      EXPECT_FALSE(s.values.contains("Other")) << "that of another run";
      EXPECT_EQ(s.files.size(), 2u);
    }
}

TEST_F(Bids, WhatIsAmbiguousOrNotThereIsNamed) {
  EXPECT_THAT(refusal(Value::table()),
              HasSubstr("input: expected one image, found 4: state subject (01, 02), run (1, 2)"));
  EXPECT_THAT(refusal(Value::object({{"subject", "sub-02"}})),
              HasSubstr("expected one image, found 2: state run (1, 2)"));
  EXPECT_THAT(refusal(Value::object({{"subject", "03"}})), HasSubstr("input.subject = 03: expected one of 01, 02"));
  EXPECT_THAT(refusal(Value::object({{"task", "lok"}})),
              HasSubstr("input.task = lok: expected one of look (did you mean 'look'?)"));
  EXPECT_THAT(refusal(Value::object({{"session", "1"}})),
              HasSubstr("input.session = 1: expected no ses: none of the 4 images has one"));
  EXPECT_THAT(refusal(Value::object({{"suffix", "T1w"}})), HasSubstr("input.suffix = T1w: expected one of bold"));
  EXPECT_THAT(refusal(Value::object({{"derivatives", "perp"}})),
              HasSubstr("input.derivatives = perp: expected one of prep (did you mean 'prep'?)"));
  EXPECT_THAT(refusal(Value::object({{"entities", Value::array({"acq"})}})),
              HasSubstr("input.entities = acq: expected entities as acq-highres"));
  EXPECT_THAT(refusal(Value::object({{"subjects", "01"}})), HasSubstr("did you mean 'subject'?"));
}

TEST_F(Bids, MissingAndContradictorySidecars) {
  write("task-look_bold.json", R"({"TaskName": "look"})");
  EXPECT_THAT(refusal(first), HasSubstr("run-1_bold.nii.gz: RepetitionTime: expected seconds in a JSON file beside or "
                                        "above it (or tr_s), found none in task-look_bold.json"));
  fs::remove(root / "task-look_bold.json");
  EXPECT_THAT(refusal(first), HasSubstr("(or tr_s), found no JSON file that applies"));
  Value stated = first;
  stated["tr_s"] = 2.0;
  EXPECT_EQ(io::open_bids(root, stated).streams[0].format.rate_hz, 0.5);
  write("task-look_bold.json", R"({"RepetitionTime": 2.0})");
  EXPECT_THAT(refusal(first), HasSubstr("task-look_bold.json: RepetitionTime: expected 2.5 s, as the header of "
                                        "sub-01_task-look_run-1_bold.nii.gz says (or tr_s), found 2 s"));
  write("bold.json", R"({"RepetitionTime": 2.5})");
  EXPECT_THAT(refusal(first), HasSubstr("bold.json of it: expected at most one in "));
  EXPECT_THAT(refusal(first), HasSubstr("found bold.json and task-look_bold.json"));
  fs::remove(root / "bold.json");
  write("task-look_bold.json", "[1]");
  EXPECT_THAT(refusal(first), HasSubstr("task-look_bold.json: expected a JSON object, found array"));
}

TEST_F(Bids, WhatIsNoDataSetIsRefused) {
  const auto message = [](const fs::path& folder) { return message_of([&] { io::BidsFolder f(folder); }); };
  EXPECT_THAT(message(root / "nowhere"), HasSubstr("nowhere: expected a folder, found nothing there"));
  EXPECT_THAT(message(root / "participants.tsv"), HasSubstr("expected a folder, found a file"));
  EXPECT_THAT(
      message(root / "sub-01"),
      HasSubstr("sub-01: dataset_description.json: expected this file, which every BIDS data set has, found none"));
  write("dataset_description.json", R"({"Name": "Toy"})");
  EXPECT_THAT(message(root), HasSubstr("dataset_description.json: BIDSVersion: expected a text, found none"));
  write("dataset_description.json", "{");
  EXPECT_THAT(message(root), HasSubstr("dataset_description.json"));
}

TEST_F(Bids, IsDescribedAndChecked) {
  Value d = io::describe_bids(root);
  EXPECT_EQ(to_json(d.at("subjects")), R"(["01","02"])");
  EXPECT_EQ(d.at("images").at("bold").as_integer(), 4);
  EXPECT_EQ(d.at("derivatives").at("prep: mask").as_integer(), 1);
  EXPECT_EQ(to_json(d.at("participants")), R"(["participant_id","age"])");
  // a derivative's timing may be the header's, so nothing is wrong
  EXPECT_THAT(d.at("problems").as_array(), IsEmpty()) << to_json(d.at("problems"));
  EXPECT_NO_THROW(io::check_bids(root));

  const auto problem = [&] {
    const Value found = io::describe_bids(root);
    EXPECT_EQ(found.at("problems").size(), 1u) << to_json(found.at("problems"));
    const std::string text =
        found.at("problems").size() ? found.at("problems").as_array()[0].at("problem").as_string() : "";
    EXPECT_EQ(message_of([&] { io::check_bids(root); }), text);
    return text;
  };
  write("participants.tsv", "participant_id\tage\nsub-01\t30\n");
  EXPECT_THAT(problem(), HasSubstr("participants.tsv: participant_id: expected a row for sub-02, found none"));
  write("participants.tsv", "participant_id\tage\nsub-01\t30\nsub-01\t31\n");
  EXPECT_THAT(problem(), HasSubstr("participant_id: expected each once, found sub-01 twice"));
  write("participants.tsv", "id\nsub-01\n");
  EXPECT_THAT(problem(), HasSubstr("columns: expected participant_id (sub-01, ...), found none"));
  write("participants.tsv", "participant_id\nsub-01\nsub-02\n");
  fs::remove(root / "sub-02/func/sub-02_task-look_run-2_events.tsv");
  EXPECT_THAT(
      problem(),
      HasSubstr("sub-02_task-look_run-2_bold.nii.gz: events: expected an events.tsv beside or above it, found none"));
  write("sub-02/func/sub-02_task-look_run-2_events.tsv", "duration\n1\n");
  EXPECT_THAT(problem(), HasSubstr("events.tsv: columns: expected a column 'onset', found none"));
  write("sub-02/func/sub-02_task-look_run-2_events.tsv", "onset\tduration\n1\t1\n10\t1\n");
  EXPECT_THAT(problem(), HasSubstr("run-2_events.tsv: onset: expected events before 10 s, where "
                                   "sub-02_task-look_run-2_bold.nii.gz ends, found 10 s"));
  write("sub-02/func/sub-02_task-look_run-2_events.tsv", "onset\tduration\n1\t1\n");
  write("sub-02/func/sub-02_task-look_run-2_bold.json", R"({"RepetitionTime": 2})");
  EXPECT_THAT(problem(), HasSubstr("run-2_bold.json: RepetitionTime: expected 2.5 s, as the header of "
                                   "sub-02_task-look_run-2_bold.nii.gz says (or tr_s), found 2 s"));
  fs::remove(root / "sub-02/func/sub-02_task-look_run-2_bold.json");
  fs::remove(root / "sub-02/func/sub-02_task-look_run-2_bold.nii.gz");
  fs::create_symlink("nowhere", root / "sub-02/func/sub-02_task-look_run-2_bold.nii.gz");
  const Value found = io::describe_bids(root);
  ASSERT_GE(found.at("problems").size(), 1u);
  EXPECT_THAT(
      found.at("problems").as_array()[0].at("problem").as_string(),
      HasSubstr("run-2_bold.nii.gz: expected a file whose content is here (git annex get?), found a link to nothing"));
}

TEST(BidsExamples, RealFolders) {
  fs::path real, empty;
  PERCEPT_NEED_DATA(real, "nifti/bids/real_stc/dataset_description.json");
  PERCEPT_NEED_DATA(empty, "nifti/bids/ds001/dataset_description.json");
  const Recording r = io::open_bids(real.parent_path(), Value::object({{"subject", "01"}}));
  EXPECT_DOUBLE_EQ(r.streams[0].format.rate_hz, 1 / 2.2);
  EXPECT_EQ(r.streams[0].frames(), 3);
  EXPECT_EQ(r.meta.at("fmri").at("fmri").at("slice_timing_s").size(), 36u);
  EXPECT_NO_THROW(io::check_bids(real.parent_path()));
  // the images of bids-examples are empty, the rest is real
  const Value options = Value::object({{"subject", "02"}, {"run", "03"}});
  EXPECT_THAT(message_of([&] { io::open_bids(empty.parent_path(), options); }), HasSubstr("found an empty file"));
  const Value d = io::describe_bids(empty.parent_path());
  EXPECT_EQ(d.at("name").as_string(), "Balloon Analog Risk-taking Task");
  EXPECT_EQ(d.at("images").at("bold").as_integer(), 9);
  EXPECT_EQ(to_json(d.at("tasks")), R"(["balloonanalogrisktask"])");
  for (auto& p : d.at("problems").as_array()) EXPECT_THAT(p.at("problem").as_string(), HasSubstr("empty file"));
}

}  // namespace
}  // namespace percept::io_test
