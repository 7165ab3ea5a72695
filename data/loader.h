/// What the loaders of registered sets share. Internal to this folder.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/params.h"
#include "core/recording.h"
#include "data/registry.h"

namespace percept::data {

/// Fetches the files of one set and writes their digests down.
struct Files {
  const DataSet& set;
  const ProgressFn& progress;
  Value& meta;

  std::filesystem::path operator()(const std::string& name) const;
  /// A matrix of text, columns x lines. Throws DataError when there are not so many columns.
  Eigen::MatrixXd csv(const char* name, Index columns, bool header = false) const;
  /// A NumPy array, size of a frame x frames. Throws DataError when it has another size; rows or frames -1: any.
  Eigen::MatrixXd npy(const char* name, Index rows, Index frames) const;
  /// The lines of a text file; empty ones are left out.
  std::vector<std::string> lines(const char* name) const;
  /// Two matrices, columns x lines, that describe the same lines.
  void same_lines(const char* a, const Eigen::MatrixXd& x, const char* b, const Eigen::MatrixXd& y) const;
};

/// A set's loader: its options and the function that fills a recording.
struct Loader {
  std::string name;
  std::vector<ParamInfo> params;
  std::function<void(const Files&, const Value& options, const std::string& where, Recording&)> load;
};

template <class P>
Loader loader(std::string name, void (*load)(const Files&, const P&, Recording&)) {
  return {std::move(name), describe_params<P>(),
          [load](const Files& files, const Value& options, const std::string& where, Recording& r) {
            load(files, read_params<P>(options, where), r);
          }};
}

/// One file a modality: loaders_bci.cpp, loaders_fmri.cpp, loaders_images.cpp.
std::vector<Loader> bci_loaders();
std::vector<Loader> fmri_loaders();
std::vector<Loader> image_loaders();

/// {word_0, word_1, ...}
std::vector<std::string> numbered(const std::string& word, Index n);
Column numbers(std::string name, std::vector<double> values);
Column texts(std::string name, std::vector<std::string> values);
Event event(double onset_s, double duration_s, const std::string& label, double value = 0);
/// By onset, and numbered in that order.
void sort_events(std::vector<Event>& events);
/// Items with keys 0, 1, ...; shape is that of one.
Stream items(const std::string& name, std::vector<Index> shape, std::shared_ptr<const SampleSource> samples,
             Scalar scalar = Scalar::f64);
/// The categories of items or frames: numbers 0 .. levels - 1.
Stream categories(const std::string& name, const std::vector<double>& level, std::vector<std::string> levels);

}  // namespace percept::data
