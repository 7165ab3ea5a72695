/// What the learned maps f(x), Q(x) share: one frame in, "mean" {d} and "covariance" {d, d} out, and which training
/// frames are held out for Q.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/registry.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/wide.h"

namespace percept {

/// Training frames without missing values, those that fit f while Q is learned, and those held out for Q: every frame
/// whose number (key, where it has one) ends in 7, 8 or 9.
struct MapFrames {
  TrainingMatrix all;
  Index dropped = 0;  ///< frames with a missing value
  std::vector<Index> fitted, held;
};
/// Throws DataError naming the node when fewer than `least` frames are left, or a target is constant.
MapFrames map_frames(const Data& data, Index least, Context& context);
/// Mean of r rᵀ over the columns of `residual`. Throws DataError naming the node when it is not positive definite or
/// there are too few frames.
Eigen::MatrixXd residual_covariance(const Eigen::MatrixXd& residual, const Context& context);

/// The word `missing` of a map's parameters: what becomes of a frame of which some rows are missing.
constexpr const char* kMissingRows = "frame|row";

/// The stage of a map of single frames. D has, all noexcept:
///   void look(Index n)         at the first n frames of frames_, which are whole: what is cheaper for several at once
///   void predict(Index f)      of the f-th of them: mean_, covariance_
///   void predict_partly()      from frame_, which is NaN in some rows: partial_mean_, partial_covariance_
/// A frame with a missing row is missing, or, with missing = "row", given to the last.
template <class D>
class LearnedMap : public Typed<D> {
 public:
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) {
      require_time(in, context, name_.c_str());
      require_rate(model_, in, context);
    }
    missing_ = &context.counter("missing");
    left_out_ = &context.counter("rows_left_out");
    StreamFormat out = in;
    out.parts = posterior_parts(model_, mean_.size(), covariance_.size() > 0);
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames;) {
      Index whole = 0, gone = 0;
      while (whole < frames_.cols() && t + whole < in.frames && (gone = read(in.frame(t + whole), whole)) == 0) ++whole;
      if (whole > 0) static_cast<D&>(*this).look(whole);
      for (Index f = 0; f < whole; ++f, ++t) {
        static_cast<D&>(*this).predict(f);
        write_posterior(mean_, offset_, covariance_, out.frame(t));
      }
      if (gone == 0) continue;
      if (leave_rows_out_ && gone < frames_.rows()) {
        left_out_->add(gone);
        frame_ = frames_.col(whole);
        static_cast<D&>(*this).predict_partly();
        write_posterior(partial_mean_, offset_, partial_covariance_, out.frame(t));
      } else {
        missing_->add();
        std::fill_n(out.frame(t), mean_.size() + covariance_.size(), std::numeric_limits<T>::quiet_NaN());
      }
      ++t;
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 protected:
  LearnedMap(const std::string& name, int version, const Model& model, const std::string& missing)
      : model_((require_model(model, name, version), model)), leave_rows_out_(missing == "row"), name_(name),
        rows_(names_of(model.meta, "input_rows")) {}
  /// Sizes everything; covariance: the posterior has that part.
  void resize(Index inputs, Index outputs, bool covariance) {
    if (rows_.empty()) rows_.resize(static_cast<std::size_t>(inputs));
    if (static_cast<Index>(rows_.size()) != inputs)
      throw DataError("model of " + name_, "input_rows", std::to_string(inputs) + " names",
                      std::to_string(rows_.size()));
    frame_.setZero(inputs);
    frames_.setZero(inputs, wide::kTogether);
    mean_.setZero(outputs);
    offset_.setZero(outputs);
    partial_mean_.setZero(outputs);
    if (covariance) {
      covariance_.setZero(outputs, outputs);
      partial_covariance_.setZero(outputs, outputs);
    }
  }

  Model model_;
  Eigen::MatrixXd frames_;                 ///< inputs x frames, in the model's order
  Eigen::VectorXd frame_, mean_, offset_;  ///< offset_ is added to mean_
  Eigen::MatrixXd covariance_;             ///< empty with covariance = none
  Eigen::VectorXd partial_mean_;
  Eigen::MatrixXd partial_covariance_;
  bool leave_rows_out_;

 private:
  /// Into a column of frames_; how many rows are missing (then NaN).
  template <class T>
  Index read(const T* x, Index column) noexcept {
    Index gone = 0;
    for (Index i = 0; i < frames_.rows(); ++i) {
      const double v = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]);
      const bool seen = std::isfinite(v);
      gone += !seen;
      frames_(i, column) = seen ? v : std::numeric_limits<double>::quiet_NaN();
    }
    return gone;
  }

  std::string name_;
  std::vector<std::string> rows_;  ///< names of the inputs, "" where not known
  std::vector<Index> order_;
  Counter *missing_ = nullptr, *left_out_ = nullptr;
};

}  // namespace percept
