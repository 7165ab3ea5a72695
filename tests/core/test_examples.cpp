/// Every example graph with one input, as a whole: laws 1 to 3 of the contract.
#include "core/pipeline.h"
#include "tests/core/support.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

/// A graph with one input, seen as one stage: the frames of its last node.
class GraphStage final : public Stage {
 public:
  explicit GraphStage(std::vector<NodeSpec> nodes) : nodes_(std::move(nodes)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    graph_ = std::make_unique<Graph>(registry(), std::vector<InputSpec>{{"x", in}}, nodes_, in.scalar, in.max_frames,
                                     context);
    last_ = static_cast<int>(graph_->names().size()) - 1;
    graph_->on_output(last_, [this](const Block& b) {
      copy_frames(b.x, out_->y.slice(given_, b.x.frames));
      given_ += b.x.frames;
    });
    return graph_->format(last_);
  }
  Index process(const Block& b, Output& o) noexcept override {
    out_ = &o;
    given_ = 0;
    graph_->push(0, b);
    return given_;
  }
  void reset() noexcept override { graph_->reset(); }
  void visit_state(StateVisitor& v) noexcept override {
    for (int i = static_cast<int>(graph_->input_count()); i <= last_; ++i) graph_->stage(i).visit_state(v);
  }
  Traits traits() const override {
    Traits t{.causal = true,
             .real_time = true,
             .latency_s = graph_->latency_s(last_),
             .memory_frames = graph_->memory_frames(last_)};
    for (int i = static_cast<int>(graph_->input_count()); i <= last_; ++i)
      t.causal = t.causal && graph_->traits(i).causal;
    return t;
  }

 private:
  std::vector<NodeSpec> nodes_;
  std::unique_ptr<Graph> graph_;
  int last_ = 0;
  Output* out_ = nullptr;
  Index given_ = 0;
};

/// Two outputs that wander, and channels that see them: fits every node in turn, as the experiment engine does.
std::vector<NodeSpec> fitted(const std::vector<StageSpec>& stages, const StreamFormat& format) {
  constexpr Index kFrames = 400;
  const KeyedRandom random(4, "examples");
  Eigen::MatrixXd y(2, kFrames), x(format.size(), kFrames);
  for (Index t = 0; t < kFrames; ++t) {
    for (Index k = 0; k < 2; ++k)
      y(k, t) = (t ? 0.9 * y(k, t - 1) : 0) + 0.5 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < x.rows(); ++i)
      x(i, t) = y(i % 2, t) + 0.3 * static_cast<double>(i) * y((i + 1) % 2, t) +
                random.normal(t, static_cast<std::uint64_t>(2 + i));
  }
  std::vector<NodeSpec> nodes;
  for (auto& s : stages) {
    NodeSpec n = s.node;
    n.from = {nodes.empty() ? "x" : s.node.from.empty() ? nodes.back().name : s.node.from[0]};
    const StageInfo& info = registry().at(n.use, n.where);
    if (info.trained) {
      // what the nodes so far make of x is what this one is fitted on
      TrainingMatrix data{x, y, {}, {}, {}};
      StreamFormat in = format;
      if (n.from[0] != "x") {
        Graph graph(registry(), {{"x", format}}, nodes, Scalar::f64, kFrames, Context{});
        const int i = graph.index_of(n.from[0]);
        in = graph.format(i);
        graph.on_output(i, [&](const Block& b) { data.x = to_matrix(b.x); });
        Block b;
        b.x = ConstFrames(x.data(), Scalar::f64, x.rows(), kFrames, x.rows());
        graph.push(0, b);
      }
      // the first frames after a lag are NaN
      data.x = data.x.rightCols(kFrames - 20).eval();
      data.y = data.y.rightCols(kFrames - 20).eval();
      Context context;
      context.node = n.name;
      n.model = std::make_shared<Model>(
          info.make_fitter(n.params, n.where)
              ->fit(MemoryData(in, time_format(2, format.rate_hz, Scalar::f64, "velocity"), data), context));
    }
    nodes.push_back(std::move(n));
  }
  return nodes;
}

class Example : public ::testing::TestWithParam<std::string> {};

TEST_P(Example, KeepsTheLawsAsAWhole) {
  const auto p = read_pipeline(source_folder() / "examples" / (GetParam() + ".toml"), registry());
  Sample sample;
  sample.format = time_format(6, 20, Scalar::f64);
  sample.frames = 400;
  const auto nodes = fitted(p.stages, sample.format);
  ASSERT_EQ(nodes.size(), p.stages.size());
  StageInfo info;
  info.name = GetParam();
  info.real_time = true;
  info.make = [&](const Value&, const Model*, const std::string&) { return std::make_unique<GraphStage>(nodes); };
  for (auto [name, check] :
       {std::pair{"partition", &check_partition}, {"state", &check_state}, {"missing", &check_missing}}) {
    const auto result = check(info, sample);
    EXPECT_TRUE(result.ok()) << name << "\n" << result.text();
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, Example,
                         ::testing::Values("contdata95_kalman", "flint_dkf_linear", "flint_kalman", "simulated_reach"),
                         [](auto& info) { return info.param; });

}  // namespace
}  // namespace percept::testing
