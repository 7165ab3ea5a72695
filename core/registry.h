/// The registry: explicit, one table per folder, no static-initialiser magic.
/// Adding a stage is one .cpp with a `StageInfo info_x()`, and one line in the folder's table.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/model.h"
#include "core/params.h"
#include "core/stage.h"

namespace percept {

/// What the contract tests run a stage on, unasked.
struct Sample {
  StreamFormat format = time_format(5, 100.0);
  Value params = Value::table();
  std::shared_ptr<const Model> model;  ///< for a trained stage: a tiny one
  std::vector<Event> events;
  Index frames = 600;
  /// Fills one frame of the input; empty: keyed standard normal numbers.
  std::function<void(std::int64_t frame, std::span<double> values)> fill;
};

/// A row of the registry.
struct StageInfo {
  std::string name;    ///< the word after `use =`
  std::string folder;  ///< "preprocessing"
  std::string doc;     ///< one line
  int version = 1;     ///< raised when the same input gives other output
  std::vector<ParamInfo> params;
  std::string paper;          ///< source, "" when it is textbook
  std::string causal_twin;    ///< of a non-causal stage: what to use live ("" none)
  bool trained = false;       ///< made from (parameters, model)
  bool needs_target = false;  ///< its fitter needs y
  bool takes_target = false;  ///< its fitter does without y, and is given it where there is one
  bool cross_fit = false;     ///< fitted on what the learned nodes above it give for rows they were not fitted on
  /// Rows whose models its fitter takes from Context::priors (`prior = "NAME"` of a [[stage]]); empty: it takes none.
  std::vector<std::string> priors;
  bool needs_prior = false;  ///< it cannot be fitted without one
  bool real_time = false;    ///< process() is promised to allocate nothing
  bool needs_torch = false;  ///< runs in LibTorch: refused where percept was built without
  std::function<std::unique_ptr<Stage>(const Value& params, const Model* model, const std::string& where)> make;
  std::function<std::unique_ptr<Fitter>(const Value& params, const std::string& where)> make_fitter;
  std::function<std::vector<Sample>()> samples;  ///< at least one
};

/// The usual row of an untrained stage S with S::Params: `S(Params)`.
template <class S>
StageInfo stage_info(std::string name, std::string folder, std::string doc) {
  StageInfo i;
  i.name = std::move(name);
  i.folder = std::move(folder);
  i.doc = std::move(doc);
  i.params = describe_params<typename S::Params>();
  i.make = [](const Value& params, const Model*, const std::string& where) -> std::unique_ptr<Stage> {
    return std::make_unique<S>(read_params<typename S::Params>(params, where));
  };
  return i;
}

/// The usual row of a trained stage S made of (Params, Model) with fitter F made of the same Params.
template <class S, class F>
StageInfo trained_info(std::string name, std::string folder, std::string doc) {
  StageInfo i;
  i.name = std::move(name);
  i.folder = std::move(folder);
  i.doc = std::move(doc);
  i.trained = true;
  i.params = describe_params<typename S::Params>();
  i.make = [](const Value& params, const Model* model, const std::string& where) -> std::unique_ptr<Stage> {
    if (!model) throw ConfigError(where, "", "a fitted model (fit = \"train\" or model = \"FOLDER\")");
    return std::make_unique<S>(read_params<typename S::Params>(params, where), *model);
  };
  i.make_fitter = [](const Value& params, const std::string& where) -> std::unique_ptr<Fitter> {
    return std::make_unique<F>(read_params<typename S::Params>(params, where));
  };
  return i;
}

class Registry {
 public:
  /// Throws Error when a name is taken or a row is incomplete (no doc, no sample, a default outside its range).
  void add(StageInfo info);
  void add(std::vector<StageInfo> table);
  const StageInfo* find(std::string_view name) const;
  /// Throws ConfigError with a "did you mean".
  const StageInfo& at(std::string_view name, const std::string& where) const;
  const std::vector<StageInfo>& all() const { return rows_; }
  std::vector<std::string> names() const;

 private:
  std::vector<StageInfo> rows_;
};

}  // namespace percept
