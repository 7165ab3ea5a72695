/// From the folder of a run that reconstructed images to what its gallery shows.
#pragma once

#include <filesystem>

#include "core/stream.h"
#include "core/value.h"

namespace percept::evaluation {

/// The gallery (report/gallery.h) of a folder that percept run wrote, made from the folder alone: predictions.percept,
/// result.json and report.json. Every score with a target of images, {rows, columns} or {1 | 3, rows, columns}, is a
/// method; a node that gives "sd" or "samples" shows them. Values are brought to bytes by one range for the whole
/// gallery: 0 to 1 where every true image lies in it, else the smallest to the largest value of the true images.
/// At most `draws` samples an image are kept. Throws DataError when the folder holds no run, or none of images.
Value gallery_of(const std::filesystem::path& run, Index draws = 8);

}  // namespace percept::evaluation
