#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "decoders/network_fit.h"
#include "filters/posterior.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kRecurrentNetworkVersion = 1;

struct RecurrentNetworkParams : NetworkParams {
  std::string cell = "gru";
  std::int64_t units = 64;
  std::int64_t input_units = 0;
  std::int64_t chunk = 30;
  std::int64_t warm_up = 10;
  std::int64_t batch = 32;
  static constexpr auto fields() {
    using P = RecurrentNetworkParams;
    return network_fields(
        choice("cell", &P::cell, "Gated recurrent unit (gru) or long short-term memory (lstm).", "gru|lstm"),
        field("units", &P::units, "units", "Units of the cell.", 1, 100000),
        field("input_units", &P::input_units, "units", "Units of a dense tanh layer before the cell; 0: none.", 0,
              100000),
        field("chunk", &P::chunk, "frames", "Frames that are learnt from in one piece.", 1, 1000000),
        field("warm_up", &P::warm_up, "frames",
              "Frames run before each chunk, so that its first error does not come from an empty state.", 0, 1000000),
        field("batch", &P::batch, "chunks", "Chunks in a training step.", 1, 1000000));
  }
};

/// out = W x + b in float, as LibTorch does: rows in panels of kPanel, so that the sums of a panel stay in registers.
/// Blocks of rows (the gates of a cell) start on a panel of their own.
class FloatLayer {
 public:
  static constexpr Index kPanel = 16;
  static Index padded(Index rows) { return (rows + kPanel - 1) / kPanel * kPanel; }

  FloatLayer(const MatrixXd& w, const MatrixXd& b, Index blocks = 1) : inputs_(w.cols()) {
    const Index rows = w.rows() / blocks, stride = padded(rows);
    values_.setZero(blocks * stride * (inputs_ + 1));
    for (Index block = 0; block < blocks; ++block)
      for (Index i = 0; i < rows; ++i) {
        const Index at = block * stride + i;
        float* to = values_.data() + at / kPanel * kPanel * (inputs_ + 1) + at % kPanel;
        *to = static_cast<float>(b(block * rows + i));
        for (Index c = 0; c < inputs_; ++c) to[(c + 1) * kPanel] = static_cast<float>(w(block * rows + i, c));
      }
    out.setZero(blocks * stride);
  }

  void apply(const float* x) noexcept {
    using Panel = Eigen::Array<float, kPanel, 1>;
    const float* w = values_.data();
    for (Index at = 0; at < out.size(); at += kPanel) {
      Panel sum = Panel::Map(w);
      w += kPanel;
      for (Index c = 0; c < inputs_; ++c, w += kPanel) sum += Panel::Map(w) * x[c];
      Panel::Map(out.data() + at) = sum;
    }
  }

  Eigen::VectorXf out;  ///< blocks x padded rows

 private:
  Index inputs_;
  Eigen::VectorXf values_;  ///< panel after panel: offsets, then one column after the other
};

/// One network: its state, and the step from one frame to the next.
struct RecurrentCell {
  bool lstm;
  Index stride;                   ///< units, padded
  std::vector<FloatLayer> input;  ///< none or one
  FloatLayer from_input, from_hidden, output;
  Eigen::VectorXf hidden, memory;  ///< state; memory: of an lstm

  RecurrentCell(bool is_lstm, Index units, std::vector<FloatLayer> in, FloatLayer x, FloatLayer h, FloatLayer out)
      : lstm(is_lstm), stride(FloatLayer::padded(units)), input(std::move(in)), from_input(std::move(x)),
        from_hidden(std::move(h)), output(std::move(out)), hidden(stride), memory(lstm ? stride : 0) {}

  const Eigen::VectorXf& step(const float* frame) noexcept {
    if (!input.empty()) {
      input[0].apply(frame);
      input[0].out.array() = input[0].out.array().tanh();
      frame = input[0].out.data();
    }
    from_input.apply(frame);
    from_hidden.apply(hidden.data());
    const auto x = [&](Index gate) { return from_input.out.segment(gate * stride, stride).array(); };
    const auto h = [&](Index gate) { return from_hidden.out.segment(gate * stride, stride).array(); };
    const auto sigmoid = [&](Index gate) { x(gate) = ((x(gate) + h(gate)) * 0.5F).tanh() * 0.5F + 0.5F; };
    sigmoid(0);
    sigmoid(1);
    if (lstm) {
      sigmoid(3);
      x(2) = (x(2) + h(2)).tanh();
      memory.array() = x(1) * memory.array() + x(0) * x(2);
      hidden.array() = x(3) * memory.array().tanh();
    } else {
      x(2) = (x(2) + x(0) * h(2)).tanh();
      hidden.array() = x(2) + x(1) * (hidden.array() - x(2));
    }
    output.apply(hidden.data());
    return output.out;
  }
};

/// Gates as LibTorch has them: Cho et al., EMNLP 2014 (with the reset after the product), and Hochreiter, Schmidhuber,
/// Neural Computation 9 (1997) 1735 with a forget gate.
class RecurrentNetworkStage final : public Typed<RecurrentNetworkStage> {
 public:
  using Params = RecurrentNetworkParams;
  RecurrentNetworkStage(const Params&, const Model& model)
      : model_(model, "recurrent_network", kRecurrentNetworkVersion), frame_(model_.x_mean.size()) {
    const std::string cell = model.meta.get("cell", "");
    if (cell != "gru" && cell != "lstm") throw DataError("model of recurrent_network", "cell", "gru or lstm", cell);
    const Index gates = cell == "gru" ? 3 : 4;
    std::vector<MatrixXd> in, in_bias;
    Index width = model_.x_mean.size();
    if (model.has("input.weights")) {
      in = model_.arrays("input.weights", -1, width);
      width = in[0].rows();
      in_bias = model_.arrays("input.bias", width, 1);
    }
    const auto x = model_.arrays("cell.weights_x", -1, width);
    if (x[0].rows() % gates != 0)
      throw DataError("model of recurrent_network", "cell.weights_x", fmt::format("rows of {} gates", gates),
                      std::to_string(x[0].rows()));
    const Index units = x[0].rows() / gates;
    const auto h = model_.arrays("cell.weights_h", gates * units, units),
               x_bias = model_.arrays("cell.bias_x", gates * units, 1),
               h_bias = model_.arrays("cell.bias_h", gates * units, 1),
               out = model_.arrays("output.weights", -1, units),
               out_bias = model_.arrays("output.bias", out[0].rows(), 1);
    for (std::size_t k = 0; k < x.size(); ++k) {
      std::vector<FloatLayer> input;
      if (!in.empty()) input.emplace_back(in[k], in_bias[k]);
      cells_.emplace_back(cell == "lstm", units, std::move(input), FloatLayer(x[k], x_bias[k], gates),
                          FloatLayer(h[k], h_bias[k], gates), FloatLayer(out[k], out_bias[k]));
    }
    model_.set_outputs(out[0].rows());
    mean_.resize(out[0].rows());
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "recurrent_network");
    missing_ = &context.counter("missing");
    reset();
    return model_.prepare(in, context);
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    constexpr double kFarthest = 1e6;  // so many standard deviations say no more than fewer, and float cannot overflow
    const NetworkModel& m = model_;
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      bool whole = true;
      for (Index i = 0; i < frame_.size(); ++i) {
        const double v = (static_cast<double>(x[m.order[static_cast<std::size_t>(i)]]) - m.x_mean(i)) / m.x_sd(i);
        whole = whole && std::isfinite(v);
        frame_(i) = static_cast<float>(std::clamp(v, -kFarthest, kFarthest));
      }
      if (!whole) {
        missing_->add();
        std::fill_n(y, mean_.size() + m.covariance.size(), std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      mean_.setZero();
      for (RecurrentCell& cell : cells_) {
        const Eigen::VectorXf& one = cell.step(frame_.data());
        for (Index k = 0; k < mean_.size(); ++k) mean_(k) += static_cast<double>(one(k));
      }
      for (Index k = 0; k < mean_.size(); ++k) mean_(k) *= m.y_sd(k) / static_cast<double>(cells_.size());
      write_posterior(mean_, m.y_mean, m.covariance, y);
    }
    return in.frames;
  }

  void reset() noexcept override {
    for (RecurrentCell& cell : cells_) {
      cell.hidden.setZero();
      cell.memory.setZero();
    }
  }
  void visit_state(StateVisitor& visit) noexcept override {
    for (RecurrentCell& cell : cells_) {
      visit("hidden", cell.hidden);
      visit("memory", cell.memory);
    }
  }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  NetworkModel model_;
  std::vector<RecurrentCell> cells_;  ///< of each network
  Eigen::VectorXf frame_;
  VectorXd mean_;
  Counter* missing_ = nullptr;
};

class RecurrentNetworkFitter final : public Fitter {
 public:
  explicit RecurrentNetworkFitter(RecurrentNetworkParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    require_time(data.x_format(), context, "recurrent_network");
    NetworkTask task;
    task.cell = p_.cell;
    task.units = p_.units;
    task.input_units = p_.input_units;
    task.chunk = p_.chunk;
    task.warm_up = p_.warm_up;
    task.batch = p_.batch;
    Value meta =
        model_meta("recurrent_network", kRecurrentNetworkVersion, write_params(p_), data.x_format(), data.y_format());
    meta["cell"] = p_.cell;
    const auto make = [&](const Model& m) { return std::make_unique<RecurrentNetworkStage>(p_, m); };
    return fit_networks(p_, std::move(task), std::move(meta), make, data, context);
  }

 private:
  RecurrentNetworkParams p_;
};

/// Networks of keyed random weights: samples need no training.
Sample recurrent_network_sample(const std::string& cell, Index input_units, Index units, std::int64_t networks,
                                bool covariance) {
  const KeyedRandom random(1, "recurrent_network sample");
  const StreamFormat format = time_format(5, 100.0);
  const StreamFormat target = time_format(2, 100.0, Scalar::f64, "velocity");
  Model m;
  m.meta = model_meta("recurrent_network", kRecurrentNetworkVersion, Value::table(), format, target);
  m.meta["cell"] = cell;
  m.meta["networks"] = networks;
  std::int64_t key = 0;
  const auto set = [&](const char* name, Index rows, Index cols) {
    Eigen::MatrixXf w(rows * networks, cols);
    for (Index k = 0; k < w.size(); ++k)
      w.data()[k] =
          static_cast<float>(random.normal(key, static_cast<std::uint64_t>(k)) / std::sqrt(static_cast<double>(cols)));
    m.set_f32(name, w);
    ++key;
  };
  const Index in = input_units > 0 ? input_units : 5, gates = cell == "gru" ? 3 : 4;
  if (input_units > 0) {
    set("input.weights", input_units, 5);
    set("input.bias", input_units, 1);
  }
  set("cell.weights_x", gates * units, in);
  set("cell.weights_h", gates * units, units);
  set("cell.bias_x", gates * units, 1);
  set("cell.bias_h", gates * units, 1);
  set("output.weights", 2, units);
  set("output.bias", 2, 1);
  m.set("x_mean", VectorXd(VectorXd::LinSpaced(5, -0.5, 0.5)));
  m.set("x_sd", VectorXd(VectorXd::LinSpaced(5, 0.5, 2)));
  m.set("y_mean", VectorXd(VectorXd::Constant(2, 0.25)));
  m.set("y_sd", VectorXd(VectorXd::LinSpaced(2, 1, 3)));
  if (covariance) m.set("Q", MatrixXd{{0.5, 0.1}, {0.1, 0.3}});
  Sample sample;
  sample.format = format;
  sample.model = std::make_shared<Model>(std::move(m));
  return sample;
}

}  // namespace

StageInfo info_recurrent_network() {
  auto i = trained_info<RecurrentNetworkStage, RecurrentNetworkFitter>(
      "recurrent_network", "decoders",
      "A recurrent network (GRU or LSTM), trained by LibTorch and applied frame by frame without it: gives the mean "
      "and "
      "a constant covariance of its error. A missing frame gives a missing output and leaves the state as it was.");
  i.version = kRecurrentNetworkVersion;
  i.paper = "Cho et al., EMNLP 2014, 1724; Hochreiter, Schmidhuber, Neural Computation 9 (1997) 1735";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    add_samples(all, recurrent_network_sample("gru", 0, 7, 1, true));
    add_samples(all, recurrent_network_sample("gru", 6, 16, 2, false));
    add_samples(all, recurrent_network_sample("lstm", 4, 20, 1, true));
    return all;
  };
  return i;
}

}  // namespace percept
