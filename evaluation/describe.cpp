#include "evaluation/describe.h"

#include <fmt/format.h>

#include <algorithm>

namespace percept::evaluation {

Value describe_graph(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                     const Fitted* fitted, const Priors* priors) {
  // as much of the graph as can be made: what waits for a fit, and what stands below it, is only named
  std::vector<NodeSpec> nodes;
  std::vector<std::string> unknown;
  std::string before = recording.streams.empty() ? "" : recording.streams[0].name;
  Value rows = Value::array();
  std::vector<NodeSpec> all;
  for (auto& s : pipeline.stages) {
    NodeSpec n = s.node;
    if (n.from.empty() && !before.empty()) n.from = {before};
    before = n.name;
    if (fitted)
      for (auto& f : fitted->nodes)
        if (f.name == n.name) n.model = f.model;
    if (!n.model && !s.model.empty() && (priors || !pipeline.prior(s.model)))
      n.model = load_model(pipeline, s, registry, priors);
    all.push_back(n);
  }
  for (bool grew = true; grew;) {
    grew = false;
    for (auto& n : all) {
      if (std::find(unknown.begin(), unknown.end(), n.name) != unknown.end()) continue;
      bool waits = recording.streams.empty() || (registry.at(n.use, n.where).trained && !n.model);
      for (auto& ref : n.from)
        for (auto& u : unknown) waits = waits || ref == u || ref.rfind(u + ".", 0) == 0;
      if (waits) {
        unknown.push_back(n.name);
        grew = true;
      }
    }
  }
  for (auto& n : all)
    if (std::find(unknown.begin(), unknown.end(), n.name) == unknown.end()) nodes.push_back(n);
  std::vector<InputSpec> inputs;
  for (auto& n : input_names(recording, nodes)) inputs.push_back({n, recording.stream(n, "from").format});
  std::unique_ptr<Graph> graph;
  if (!nodes.empty()) graph = std::make_unique<Graph>(registry, inputs, nodes, pipeline.precision, 1, Context{});
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& n = all[i];
    Value row = Value::object({{"name", n.name}, {"use", n.use}, {"from", Value(n.from)}});
    const int index = graph ? graph->index_of(n.name) : -1;
    if (index < 0) {
      for (const char* key : {"shape", "rate_hz", "latency_s", "memory_frames", "scalar"}) row[key] = "?";
    } else {
      const auto& f = graph->format(index);
      std::string shape;
      for (auto& part : f.parts)
        shape += fmt::format("{}{} {{{}}}", shape.empty() ? "" : " + ", part.name, fmt::join(part.shape, ", "));
      row["shape"] = shape;
      row["rate_hz"] = f.axis == Axis::time ? Value(f.rate_hz) : Value("items");
      row["latency_s"] = graph->latency_s(index);
      const Index m = graph->memory_frames(index);
      row["memory_frames"] = m == Traits::kAllFrames  ? Value("all")
                             : m == Traits::kDecaying ? Value("fading")
                                                      : Value(m);
      row["scalar"] = name_of(f.scalar);
    }
    const auto& info = registry.at(n.use, n.where);
    const auto& stage = pipeline.stages[i];
    std::string fit = !info.trained                 ? ""
                      : pipeline.prior(stage.model) ? "prior " + stage.model
                      : !stage.model.empty()        ? "model " + stage.model
                      : stage.fit == FitMode::train ? "train"
                      : stage.fit == FitMode::self  ? "self"
                                                    : fmt::format("first {:.6g} s", stage.fit_s);
    if (!stage.priors.empty()) fit += fmt::format(", prior {}", fmt::join(stage.priors, ", "));
    row["fit"] = fit;
    if (!n.reset.empty()) row["reset"] = n.reset;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace percept::evaluation
