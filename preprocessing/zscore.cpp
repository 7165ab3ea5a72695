#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/apply.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
constexpr int kZScoreVersion = 1;

/// y = (x - mean) / sd with the mean and sd of the training frames.
class ZScore final : public Typed<ZScore> {
 public:
  using Params = NoParams;
  ZScore(Params, const Model& model) : model_(model) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "zscore");
    const auto at = row_order(model_.input_rows(), named_rows(in), context);
    mean_.resize(in.size());
    sd_.resize(in.size());
    mean_(at) = model_.vector("mean", in.size());
    sd_(at) = model_.vector("sd", in.size());
    StreamFormat out = in;
    for (auto& part : out.parts) {
      part.unit = "1";
      for (auto& c : part.rows) c.unit = "";
    }
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      for (Index r = 0; r < in.rows; ++r) y[r] = static_cast<T>((static_cast<double>(x[r]) - mean_[r]) / sd_[r]);
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;
  Eigen::VectorXd mean_, sd_;  ///< one a row [input unit]
};

/// Two passes: the mean of what is not NaN, then the spread about it (divided by n).
class ZScoreFitter final : public Fitter {
 public:
  explicit ZScoreFitter(NoParams) {}
  Model fit(const Data& data, Context& context) override {
    const Index rows = data.x_format().size();
    using Array = Eigen::ArrayXd;
    Array sum = Array::Zero(rows), n = Array::Zero(rows), squares = Array::Zero(rows);
    Array low = Array::Constant(rows, std::numeric_limits<double>::infinity()), high = -low;
    auto each = [&](auto&& f) {
      data.pass([&](const TrainingBlock& b) {
        context.check_cancel();
        const Eigen::MatrixXd x = to_matrix(b.x);
        for (Index t = 0; t < x.cols(); ++t)
          for (Index r = 0; r < rows; ++r)
            if (std::isfinite(x(r, t))) f(r, x(r, t));
      });
    };
    each([&](Index r, double v) {
      sum[r] += v;
      n[r] += 1;
      low[r] = std::min(low[r], v);
      high[r] = std::max(high[r], v);
    });
    if (!(n > 0).any()) throw DataError(context.node, "training frames", "at least one value that is not NaN", "none");
    // a row that was never there stays NaN: there is no scale to give it
    Array mean = sum / n;
    each([&](Index r, double v) { squares[r] += (v - mean[r]) * (v - mean[r]); });
    Array sd = (squares / n).sqrt();
    const auto names = data.x_format().row_names();
    for (Index r = 0; r < rows; ++r) {
      const std::string name = "row '" + names[static_cast<std::size_t>(r)] + "'";
      if (n[r] == 0) context.warn(name + " has no value in the training frames: it will be NaN");
      else if (low[r] == high[r]) {
        mean[r] = low[r];
        sd[r] = 1;
        context.warn(name + " is constant in the training frames: its mean is taken off, its scale is left");
      }
    }
    Model m;
    m.meta = model_meta("zscore", kZScoreVersion, Value::table(), data.x_format());
    m.set("mean", Eigen::MatrixXd(mean.matrix()));
    m.set("sd", Eigen::MatrixXd(sd.matrix()));
    return m;
  }
};
}  // namespace

StageInfo info_zscore() {
  auto i = trained_info<ZScore, ZScoreFitter>(
      "zscore", "preprocessing",
      "Mean 0 and standard deviation 1 per row, as found in the training frames (NaN left "
      "out, sums divided by n). A row constant there keeps its scale, with a warning; one "
      "never there stays NaN.");
  i.version = kZScoreVersion;
  i.real_time = true;
  i.samples = [] {
    Sample s;
    auto model = std::make_shared<Model>();
    model->meta = model_meta("zscore", kZScoreVersion, Value::table(), s.format);
    model->set("mean", Eigen::MatrixXd(Eigen::VectorXd::LinSpaced(5, -1, 1)));
    model->set("sd", Eigen::MatrixXd(Eigen::VectorXd::LinSpaced(5, 0.5, 2)));
    s.model = model;
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
