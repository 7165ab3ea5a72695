/// Any file that percept reads, by its extension; of a live session (.session) all that can be used, also when it was
/// cut off.
///
/// Options (all but the first optional; an unknown key is a ConfigError):
///   header     .csv, .tsv: must be stated (true or false)
///   delimiter  .csv: one character, default ","; .tsv is always tab
///   allow_inf  .csv, .tsv: default false
///   variable   .mat: name of the variable; .h5: path of the data set; .percept: name of the stream.
///              (so .session). May be left out when only one can be read
///   transpose  .csv, .tsv, .npy (2-D), .mat, .h5: the second axis is frames, default false (the first is)
///   rate_hz    frames get a clock; without it they are items with keys 0, 1, ... (a .percept file has its own)
///   start_s    time of the first frame, default 0; needs rate_hz
///   unit       of the values, default "1"
///   name       of the stream, default the file's stem ("fmri" for an image)
/// and for functional images (.nii, .nii.gz, .gii; io/fmri.h), whose rows are voxels (of CIFTI grayordinates or parcels,
/// of GIFTI vertices) and whose clock is their own:
///   mask           image whose voxels other than 0 are kept
///   atlas          image of region numbers: a voxel's kind is its region; without a mask, region 0 is left out
///   labels         .tsv with the names of the regions (index, name), default beside the atlas
///   regions        only these regions of the atlas; of CIFTI, structures or parcels
///   surface        .surf.gii on which the values of a .gii lie
///   sidecar        JSON of BIDS, default the one beside the image
///   tr_s           repetition time, above what header and sidecar say
///   items          volumes are items (one map a trial), default false
///   allow_missing  NaN are missing values, default false: they are an error
#pragma once

#include <filesystem>
#include <string>

#include "core/recording.h"

namespace percept::io {

/// Has the file a name that says what it is? Whether it exists is not asked.
bool can_open(const std::filesystem::path& file);

/// One stream of a file. Throws DataError or ConfigError ("where.key" starts the message).
Stream open_stream(const std::filesystem::path& file, const Value& options = Value::table(),
                   const std::string& where = "input");

/// The same with the tables and metadata that belong to it: of an image, table "voxel" and
/// meta.fmri.NAME; meta.input has the digests of mask, atlas, labels and sidecar.
Recording open_part(const std::filesystem::path& file, const Value& options = Value::table(),
                    const std::string& where = "input");

/// The same stream without its samples, from the head of the file as far as its kind allows: a file may be broken
/// further down. Items have no keys.
Stream outline_stream(const std::filesystem::path& file, const Value& options = Value::table(),
                      const std::string& where = "input");

/// A whole file: all of a .percept store, one stream of any other. meta.input has the file's sha256.
Recording open_recording(const std::filesystem::path& file, const Value& options = Value::table(),
                         const std::string& where = "input");

/// What a file holds: {file, kind, bytes, contents: [{name, shape, type, rate_hz, missing, min, max, ...}], ...};
/// of an image "image" has what io/fmri.h says of it.
/// Missing values and ranges are counted where that takes less than a second or two (up to 16 million values).
Value describe_file(const std::filesystem::path& file);

/// Reads everything in the file and throws DataError at the first thing that is wrong.
void check_file(const std::filesystem::path& file);

}  // namespace percept::io
