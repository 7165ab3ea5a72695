/// The gallery of a run that reconstructed images: one HTML file that needs nothing else, no network included.
#pragma once

#include <string>

#include "core/value.h"

namespace percept::evaluation {

/// Renders a gallery. Pixels are bytes in base64, image after image, row after row (a colour image plane after plane);
/// 0 is black and 255 white. Every string is shown as text, never as markup. Throws DataError naming the place when a
/// key is missing, has the wrong type, or holds another number of bytes than its images take.
///
///     title                text; description, warnings: as in report.h
///     scores               as in report.h: shown as a table beside their controls
///     shape                [rows, columns] of an image; channels: 1 or 3 (default 1)
///     truth                bytes of every item
///     items                [{name, label}]: label may be ""
///     splits               [{name, items: [index of an item]}]
///     methods              [{name, doc}]: doc says what the estimate is best for
///     measures             {name: {label, doc, higher: is more better?, kind: "metric" | "trust"}}
///     headline             the measure shown when nothing is sorted by
///     reconstructions      [{method, split, items: [index], decoded: bytes,
///                            values: {measure: [number or null, one an item]},
///                            sd: bytes scaled so that 255 is sd_most (may be missing),
///                            samples: bytes of `draws` images an item (may be missing)}]
///     trust                [{caption, x_label, y_label, x, y}]: a plot each
///     mosaic               PNG in base64 for readers without scripts; may be missing
///     brain                {anatomy: {file, nifti}, overlays: [{name, doc, file, nifti, least, most}]}: NIfTI in base64,
///                          `file` is its name with .nii or .nii.gz; values from least to most are shown, and below
///                          -least unless `signed` is there and false; may be missing
std::string render_gallery(const Value& gallery);

}  // namespace percept::evaluation
