/// Where a result comes from, complete enough to make it again.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/recording.h"
#include "core/value.h"

namespace percept::evaluation {

/// {percept: {version, revision, compiler}, libraries, machine, config, config_file, stages: [{name, use, version}],
///  inputs: {file: sha256}, priors?: to_value() of prior.h, seed, partition: {block, threads, precision, blas}}. Holds
/// nothing that differs between two runs of the same thing on one machine: no times, no process ids. prior_images: one
/// recording a prior.
Value provenance(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                 const std::vector<Recording>& prior_images, int threads);

/// "0.1.0 (revision 1a2b3c4)".
std::string version_text();
/// Version, revision, compiler, and size and time of the program's own files: tells one build from the next, also where
/// the revision does not.
const std::string& build_stamp();
/// Version, compiler and its options, BLAS and processor: with the version of a stage, what decides the bits of a fit.
/// Unlike build_stamp() it outlives a build.
const std::string& numerics_stamp();
/// Largest memory this process held so far [bytes].
std::int64_t peak_rss_bytes();
/// ISO 8601, UTC.
std::string now_utc();

}  // namespace percept::evaluation
