/// BIDS, the layout of folders in which brain recordings are shared: names, metadata and what belongs to an image.
///
/// Gorgolewski et al., Scientific Data 3 (2016) 160044; https://bids-specification.readthedocs.io.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/recording.h"

namespace percept::io {

/// "sub-01/func/sub-01_task-rest_run-1_bold.nii.gz" in its pieces.
struct BidsFile {
  std::filesystem::path path;                                 ///< below the folder of the data set
  std::vector<std::pair<std::string, std::string>> entities;  ///< {"sub", "01"}, {"task", "rest"}, {"run", "1"}
  std::string suffix;                                         ///< "bold"
  std::string extension;                                      ///< ".nii.gz"
  std::string pipeline;                                       ///< of derivatives/PIPELINE; "" raw
  /// "" where the name has no such entity.
  std::string entity(std::string_view key) const;
};

/// Nothing where a name is not of the form key-value_..._suffix.extension.
std::optional<BidsFile> parse_bids_name(const std::filesystem::path& path);

/// Metadata of a file, merged from the JSON files that apply to it (the inheritance principle): from the data set's
/// folder down to its own, those with its suffix and no entity that it does not have; the nearer stands above.
struct BidsSidecar {
  Value values = Value::table();
  std::vector<std::filesystem::path> files;  ///< from far to near
};

class BidsFolder {
 public:
  /// Lists every file. Throws DataError when dataset_description.json is missing, not JSON, or lacks Name or
  /// BIDSVersion.
  explicit BidsFolder(std::filesystem::path root);

  const std::filesystem::path& root() const { return root_; }
  const Value& description() const { return description_; }
  /// Made from other images: of a pipeline below derivatives, or of a data set whose DatasetType is "derivative". Such
  /// files may leave timing to the header and events to the raw data.
  bool derived(const BidsFile& file) const { return derivative_ || !file.pipeline.empty(); }
  /// By path; only names that BIDS has.
  const std::vector<BidsFile>& files() const { return files_; }
  /// Throws DataError when two JSON files of one folder apply, or one cannot be read.
  BidsSidecar sidecar(const BidsFile& file) const;
  /// The table (or image) that belongs to a file by the same rule: companion(bold, "events", ".tsv").
  std::optional<BidsFile> companion(const BidsFile& file, std::string_view suffix, std::string_view extension) const;
  /// The file of a pipeline with these entities of `file` (sub, ses, task, acq, run), this desc and suffix.
  std::optional<BidsFile> beside(const BidsFile& file, std::string_view desc, std::string_view suffix,
                                 std::string_view extension) const;
  /// participants.tsv, nothing where there is none. Throws DataError without participant_id or with one twice.
  std::optional<Table> participants() const;

 private:
  std::optional<BidsFile> applying(const BidsFile& file, const std::filesystem::path& folder, std::string_view suffix,
                                   std::string_view extension) const;

  std::filesystem::path root_;
  Value description_;
  bool derivative_ = false;
  std::vector<BidsFile> files_;
  std::multimap<std::string, std::size_t> by_folder_;
};

/// One recording of a data set. Options (unknown keys are a ConfigError):
///   subject, session, task, run, space, desc   entities that choose the image; only as many as are needed
///   entities      others: ["acq-highres", "echo-1"]
///   suffix        default "bold"
///   derivatives   name of a pipeline: its images instead of the raw ones
///   mask, atlas, labels, regions, tr_s, items, allow_missing, name   as in io/open.h
/// Gives the stream "fmri", the events of events.tsv, tables "participants" and "voxel", meta.entities, and of a
/// pipeline the stream "confounds" where there is such a table; its brain mask is the default mask.
/// Throws ConfigError naming the entity that no or more than one image has, DataError for a sidecar without
/// RepetitionTime (raw images) or one that contradicts the header.
Recording open_bids(const std::filesystem::path& root, const Value& options, const std::string& where = "input");

/// Rows of an events.tsv (onset, duration, trial_type, value) as events; "n/a" is no duration, no label, or a value of
/// NaN. Throws DataError.
std::vector<Event> events_of_table(const Table& table, const std::string& file);

/// Name, version, subjects, sessions, tasks, counts, pipelines, and what is missing or wrong ("problems").
Value describe_bids(const std::filesystem::path& root);
/// Throws DataError at the first thing that is wrong: every image is read to its end, with sidecar and events.
void check_bids(const std::filesystem::path& root);

/// Whether a folder looks like a BIDS data set: it has a description or a folder sub-*.
bool is_bids(const std::filesystem::path& folder);

}  // namespace percept::io
