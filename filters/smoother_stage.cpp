#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "filters/posterior.h"
#include "filters/smoother.h"
#include "filters/state_model.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kSmootherVersion = 1;

struct RtsParams {
  static constexpr const char* kName = "rts";
  bool center = true;
  static constexpr auto fields() {
    return std::tuple{field("center", &RtsParams::center, "",
                            "Take the outputs' training mean off and give it back, as the filter above does.")};
  }
};
struct FixedLagParams {
  static constexpr const char* kName = "fixed_lag_smoother";
  bool center = true;
  double lag_s = 0.5;
  static constexpr auto fields() {
    return std::tuple{field("center", &FixedLagParams::center, "",
                            "Take the outputs' training mean off and give it back, as the filter above does."),
                      field("lag_s", &FixedLagParams::lag_s, "s",
                            "How far a frame looks ahead, in whole frames; this is its latency.", 1e-6, 1e6)};
  }
};

/// What both do: the posterior of a filter from an edge, and back.
template <class D, class P>
class SmootherStage : public Typed<D> {
 public:
  using Params = P;
  SmootherStage(const P& p, const Model& model)
      : params_(p), model_((require_model(model, P::kName, kSmootherVersion), model)),
        smoother_(model.matrix("A"), model.matrix("Gamma"), P::kName),
        z_mean_(model.vector("z_mean", smoother_.states())) {}

 protected:
  StreamFormat prepare_edge(const StreamFormat& in, Context& context) {
    require_time(in, context, P::kName);
    require_rate(model_, in, context);
    edge_ = PosteriorEdge(in, model_, smoother_.states(), "kalman", context);
    missing_ = &context.counter("missing");
    StreamFormat out = in;
    out.parts = posterior_parts(model_, smoother_.states(), true);
    return out;
  }
  /// One frame without its offset; a missing one is predicted from the frame before, or NaN when there is none.
  template <class T>
  void take(const T* frame, const double* before, double* to) noexcept {
    const Index d = smoother_.states();
    bool whole = true;
    edge_.read(frame, to, to + d);
    for (Index i = 0; i < d; ++i) to[i] -= z_mean_(i);
    for (Index i = 0; i < smoother_.size(); ++i) whole &= std::isfinite(to[i]);
    if (whole) return;
    missing_->add();
    if (before && std::isfinite(before[0])) smoother_.predict(before, to);
    else std::fill_n(to, smoother_.size(), std::numeric_limits<double>::quiet_NaN());
  }
  template <class T>
  void write(const double* posterior, T* out) const noexcept {
    const Index d = smoother_.states();
    for (Index i = 0; i < d; ++i) out[i] = static_cast<T>(posterior[i] + z_mean_(i));
    for (Index i = d; i < smoother_.size(); ++i) out[i] = static_cast<T>(posterior[i]);
  }
  void write(const double* posterior, MutableFrames out, Index frame) const noexcept {
    if (out.scalar == Scalar::f32) write(posterior, out.as<float>().frame(frame));
    else write(posterior, out.as<double>().frame(frame));
  }

  P params_;
  Model model_;
  Smoother smoother_;
  VectorXd z_mean_;
  PosteriorEdge edge_;
  Counter* missing_ = nullptr;
};

class Rts final : public SmootherStage<Rts, RtsParams> {
 public:
  using SmootherStage::SmootherStage;
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    StreamFormat out = prepare_edge(in, context);
    room_ = in.max_frames;
    reset();
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T>) noexcept {
    const Index size = smoother_.size();
    for (Index t = 0; t < in.frames; ++t) {
      const std::size_t at = held_.size();
      held_.resize(at + static_cast<std::size_t>(size));
      take(in.frame(t), at ? held_.data() + at - size : nullptr, held_.data() + at);
    }
    return 0;
  }
  Index flush(Output& out) noexcept override {
    const Index size = smoother_.size(), frames = static_cast<Index>(held_.size()) / size;
    if (given_ == 0)
      for (Index t = frames - 2; t >= 0; --t)
        if (double* frame = held_.data() + t * size; std::isfinite(frame[0])) smoother_.step_back(frame, frame + size);
    const Index n = std::min(room_, frames - given_);
    for (Index t = 0; t < n; ++t) write(held_.data() + (given_ + t) * size, out.y, t);
    given_ += n;
    return n;
  }
  void reset() noexcept override {
    held_.clear();
    given_ = 0;
  }
  Traits traits() const override { return {.causal = false, .memory_frames = Traits::kAllFrames}; }

 private:
  Index room_ = 1, given_ = 0;
  std::vector<double> held_;  ///< every posterior of the recording
};

class FixedLag final : public SmootherStage<FixedLag, FixedLagParams> {
 public:
  using SmootherStage::SmootherStage;
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    StreamFormat out = prepare_edge(in, context);
    lag_ = std::llround(params_.lag_s * in.rate_hz);
    require(lag_ >= 1 && lag_ <= 1000000, context, "lag_s", fmt::format("{} s", params_.lag_s),
            fmt::format("1 to 1000000 frames of {} s", 1 / in.rate_hz));
    latency_s_ = static_cast<double>(lag_) / in.rate_hz;
    out.start_s = in.start_s - latency_s_;
    room_ = out.max_frames;
    held_.resize(static_cast<std::size_t>((lag_ + 1) * smoother_.size()));
    a_.resize(static_cast<std::size_t>(smoother_.size()));
    b_.resize(a_.size());
    reset();
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      take(in.frame(t), count_ ? at(count_ - 1) : nullptr, at(count_));
      ++count_;
      // the first frames stand for times before the recording
      if (count_ > lag_) write(smoothed(count_ - 1 - lag_), out.frame(t));
      else std::fill_n(out.frame(t), out.rows, std::numeric_limits<T>::quiet_NaN());
    }
    return in.frames;
  }
  Index flush(Output& out) noexcept override {
    Index n = 0;
    for (; n < room_ && flushed_ < lag_; ++n, ++flushed_) {
      const std::int64_t frame = count_ - lag_ + flushed_;
      if (frame >= 0) write(smoothed(frame), out.y, n);
      else write(missing_posterior(), out.y, n);
    }
    return n;
  }
  void reset() noexcept override {
    std::fill(held_.begin(), held_.end(), 0.0);
    count_ = flushed_ = 0;
  }
  void visit_state(StateVisitor& visitor) noexcept override {
    visitor("held", held_);
    visitor("count", count_);
    visitor("flushed", flushed_);
  }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .latency_s = latency_s_, .memory_frames = Traits::kDecaying};
  }

 private:
  double* at(std::int64_t frame) noexcept { return held_.data() + frame % (lag_ + 1) * smoother_.size(); }
  const double* missing_posterior() noexcept {
    std::fill(a_.begin(), a_.end(), std::numeric_limits<double>::quiet_NaN());
    return a_.data();
  }
  /// The frame, given every frame that is held.
  const double* smoothed(std::int64_t frame) noexcept {
    std::copy_n(at(count_ - 1), a_.size(), a_.data());
    for (std::int64_t t = count_ - 2; t >= frame; --t) {
      std::copy_n(at(t), b_.size(), b_.data());
      if (std::isfinite(b_[0])) smoother_.step_back(b_.data(), a_.data());
      a_.swap(b_);
    }
    return a_.data();
  }

  Index lag_ = 1, room_ = 1;
  double latency_s_ = 0;
  std::vector<double> held_;  ///< the last lag + 1 posteriors
  std::int64_t count_ = 0, flushed_ = 0;
  std::vector<double> a_, b_;
};

template <class P>
class SmootherFitter final : public Fitter {
 public:
  explicit SmootherFitter(P p) : p_(std::move(p)) {}

  /// Learns from the target alone, as the filters do.
  Model fit(const Data& data, Context& context) override {
    const StateSums s = state_sums(data, p_.center, Observations::none, context);
    const StateModel z = state_model(s, context);
    Model m;
    m.meta = model_meta(P::kName, kSmootherVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = s.frames;
    m.meta["pairs"] = s.pairs;
    m.meta["dropped_frames"] = s.dropped;
    m.set("A", z.a);
    m.set("Gamma", z.gamma);
    m.set("z_mean", p_.center ? s.z_mean : VectorXd(VectorXd::Zero(s.z_mean.size())));
    return m;
  }

 private:
  P p_;
};

/// A posterior that wanders.
template <class P>
Sample smoother_sample(const Value& params) {
  StreamFormat format = time_format(2, 100.0, Scalar::f64, "mean");
  format.parts[0].rows.resize(2);
  format.parts[0].rows[0].name = "x";
  format.parts[0].rows[1].name = "y";
  format.parts.push_back({"covariance", {2, 2}, "1", {}, {}});
  Sample sample = fitted_sample<SmootherFitter<P>, P>(params, format);
  sample.fill = [random = KeyedRandom(2, "sample")](std::int64_t frame, std::span<double> values) {
    values[0] = random.normal(frame, 0);
    values[1] = random.normal(frame, 1);
    values[2] = 0.3 + 0.1 * random.uniform(frame, 2);
    values[3] = values[4] = 0.1;
    values[5] = 0.2;
  };
  return sample;
}

}  // namespace

StageInfo info_rts() {
  auto i = trained_info<Rts, SmootherFitter<RtsParams>>(
      "rts", "filters",
      "Rauch-Tung-Striebel smoother: a filter's posterior (parts mean and covariance) given the whole recording.");
  i.version = kSmootherVersion;
  i.paper = "Rauch, Tung, Striebel, AIAA Journal 3 (1965) 1445";
  i.causal_twin = "fixed_lag_smoother";
  i.needs_target = true;
  i.samples = [] {
    std::vector<Sample> all;
    add_samples(all, smoother_sample<RtsParams>(Value::table()));
    return all;
  };
  return i;
}

StageInfo info_fixed_lag_smoother() {
  auto i = trained_info<FixedLag, SmootherFitter<FixedLagParams>>(
      "fixed_lag_smoother", "filters",
      "Fixed-lag smoother: a filter's posterior (parts mean and covariance) given the next lag_s seconds too.");
  i.version = kSmootherVersion;
  i.paper = "Rauch, Tung, Striebel, AIAA Journal 3 (1965) 1445";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    add_samples(all, smoother_sample<FixedLagParams>(Value::object({{"lag_s", 0.07}})));
    return all;
  };
  return i;
}

}  // namespace percept
