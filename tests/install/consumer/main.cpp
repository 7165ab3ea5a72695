/// Knows percept only as an installed package: adds a stage of its own to percept's and runs both in one graph.
#include <cstdio>
#include <memory>
#include <vector>

#include "core/graph.h"
#include "core/registry.h"
#include "percept/registry.h"

namespace {

class Twice final : public percept::Typed<Twice> {
 public:
  using Params = percept::NoParams;
  explicit Twice(Params) {}
  percept::StreamFormat prepare(const percept::StreamFormat& in, percept::Context&) override { return in; }
  template <class T>
  percept::Index run(const percept::Block&, percept::FrameSpan<const T> in, percept::Output&,
                     percept::FrameSpan<T> out) noexcept {
    for (percept::Index k = 0; k < in.frames; ++k)
      for (percept::Index row = 0; row < in.rows; ++row) out.frame(k)[row] = 2 * in.frame(k)[row];
    return in.frames;
  }
  void reset() noexcept override {}
};

}  // namespace

int main() {
  percept::Registry registry;
  registry.add(percept::builtin_registry().all());
  percept::StageInfo info = percept::stage_info<Twice>("twice", "consumer", "Doubles every value.");
  info.samples = [] { return std::vector{percept::Sample{}}; };
  registry.add(info);

  percept::NodeSpec average, twice;
  average.name = "average", average.use = "common_average", average.from = {"input"};
  twice.name = "twice", twice.use = "twice", twice.from = {"average"};
  percept::Graph graph(registry, {{"input", percept::time_format(2, 10.0)}}, {average, twice}, percept::Scalar::f64, 4,
                       percept::Context{});

  double sum = 0;
  graph.on_output(graph.index_of("twice"),
                  [&](const percept::Block& block) { sum += percept::to_matrix(block.x).row(1).sum(); });
  const std::vector<double> samples = {1, 3, 2, 6, 3, 9};  // three frames of two rows
  percept::Block block;
  block.x = percept::FrameSpan<const double>{samples.data(), 2, 3, 2};
  graph.push(0, block);
  graph.flush();
  std::printf("sum %g\n", sum);
  return sum == 12 ? 0 : 1;  // twice (3 - 2) + (6 - 4) + (9 - 6)
}
