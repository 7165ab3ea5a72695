/// Neurodata Without Borders (NWB 2, https://www.nwb.org; Rübel et al., eLife 11 (2022) e78362): a recording, above all a
/// live session, for others to read.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "core/recording.h"

namespace percept::io {

struct NwbOptions {
  std::string identifier;                ///< of the session; unique
  std::string description;               ///< in a sentence
  std::string start;                     ///< when recording time was 0: ISO 8601 with its zone, "2026-11-29T12:00:00Z"
  std::string script, script_name;       ///< what was run, as text; "": none
  std::string notes;                     ///< "": none
  std::function<bool()> cancelled = {};  ///< may be empty
  std::function<void(double)> progress = {};  ///< share that is written; may be empty
};

/// Writes a new file, block by block, under its own name only when it is whole.
///
/// Every stream needs a clock. Streams named "live_NODE" (io/session.h) go to processing/decoded, a series for each part;
/// all others to acquisition: as ElectricalSeries with a row each in the table of electrodes where every row is a voltage,
/// else as TimeSeries. Data are (frames, ...) with the missing as NaN, and are stored in their own scalar; start and rate
/// are the stream's. Row names stand in the series' comments (JSON) and, of electrodes, in their table. Events go to
/// intervals/: those of the recording to `events`, and what a live loop told to `gaps`, `masks` and `holds`, which last
/// until they were undone. Tables named "clock_INPUT" go to processing/clocks.
///
/// Throws DataError (the disk is full, a sample cannot be read), ConfigError naming a stream without a clock or options
/// that are not what they have to be, Interrupted.
void write_nwb(const Recording& recording, const std::filesystem::path& file, const NwbOptions& options);

}  // namespace percept::io
