/// Registered data sets and [input] tables as recordings.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/params.h"
#include "core/recording.h"
#include "core/value.h"

namespace percept::data {

/// A registered set, its files fetched (data/fetch.h) and verified. A bin stands for its centre, so the first frame of
/// every stream lies half a bin after zero; an event that begins with a row has that row's time. meta has title,
/// licence, citation, warnings, notes and input: {file: sha256}.
///
///   flint_run1   activity {10} and kinematics {vx, vy} at 10 Hz. Row k of both is one frame: the velocity is that of
///                the next bin, shifted by the authors; it is not to be shifted again.
///   contdata95   activity {95 counts} and kinematics {px, py, vx, vy} at 10 Hz; a trial starts where the velocity is
///                not ten times the step of the position: events and table "trial".
///   dad_chewie   activity {71 counts}, kinematics {vx, vy}, target {1, 0..7}; the authors' training rows, then their
///                test rows: events "train", "test", table "segment". Option row_s.
///   hc_wmaze     activity {24 counts} and position {x, y [pixel]} in bins of option bin_s; a bin's position is the
///                median over max(bin_s, position_window_s), NaN where the camera gave none; events "run", table
///                "units".
///   vangerven69  items 0..99: fmri {3092, rows with area and position}, image {28, 28} from 0 to 1, label {0: six,
///                1: nine}; prior {28, 28} with keys of its own, images never shown. Tables "item" (label, split),
///                "prior" (label), "voxel" (x, y, z and a column of 0 and 1 for each area); meta.anatomy and
///                meta.roi_labels are NIfTI files.
///   miyawaki_figures  items 0..119: fmri {967}, image {10, 10}; table "item" (session, condition, stimulus, split).
///   haxby_excerpt  at 0.4 Hz: fmri {530}, motion {6}, category {0: rest, 1..8}; events are the 96 blocks (label: the
///                category, value: the run); tables "volume" (run, category; a row a frame), "block", "voxel".
///   mnist_t10k, usps, notmnist, fashion_mnist  items: image {28, 28} or {16, 16} from 0 to 1, label {0..9}; table
///                "item" (label, name, and split where there is one).
///
/// Throws ConfigError for an unknown name or option, DataError for wrong bytes, Unavailable when a file cannot be had.
Recording load_data_set(const std::string& name, const Value& options = Value::table(), const ProgressFn& progress = {},
                        const std::string& where = "input");

/// Options of a set's loader.
std::vector<ParamInfo> data_set_options(const std::string& name);

/// The [input] table of a pipeline file; paths are relative to `base`. Exactly one of
///   data = "NAME"        a registered set, its options beside it
///   simulate = "NAME"    a simulator (data/simulator.h), its parameters beside it
///   file = "PATH"        all that one file holds, the options of io/open.h beside it
///   bids = "FOLDER"      one image of a BIDS data set, with its events: entities beside it (io/bids.h)
///   [[input.stream]]     name, file and the options of io/open.h; streams of one clock must have equally many frames
/// and, with each of them,
///   [[input.table]]      name, file, header (default true), delimiter (.csv: default ",", .tsv: tab)
///   [[input.events]]     file: BIDS events (onset, duration, trial_type, value); a cell "n/a" is no duration, no
///                        label, or a value of NaN, and so is a value that is not a number
/// Throws ConfigError, DataError, Unavailable.
Recording load_input(const Value& input, const std::filesystem::path& base, const ProgressFn& progress = {},
                     const std::string& where = "input");

/// What load_input would give, as far as it can be told without a download and from the heads of files: streams with
/// their formats and no samples, no tables and events. A registered set that is here is loaded, because its streams
/// are made of its files' content; of one that is not, there is only the name. Throws as load_input does.
Recording outline_input(const Value& input, const std::filesystem::path& base, const std::string& where = "input");

}  // namespace percept::data
