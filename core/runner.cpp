#include "core/runner.h"

#include <fmt/format.h>
#include <oneapi/tbb/parallel_pipeline.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/hand_over.h"
#include "core/spool.h"
#include "core/threads.h"

namespace percept {

namespace {

std::string reference_name(const std::string& ref, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), ref) != known.end()) return ref;
  const auto dot = ref.rfind('.');
  return dot == std::string::npos ? ref : ref.substr(0, dot);
}

std::vector<std::string> known_names(const Recording& recording, const std::vector<NodeSpec>& nodes) {
  std::vector<std::string> known;
  for (auto& s : recording.streams) known.push_back(s.name);
  for (auto& n : nodes) known.push_back(n.name);
  return known;
}

/// Makes the implied `from` explicit: the node before, or the first stream.
std::vector<NodeSpec> with_sources(const Recording& recording, std::vector<NodeSpec> nodes) {
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].from.empty()) {
      if (i > 0) nodes[i].from = {nodes[i - 1].name};
      else if (!recording.streams.empty()) nodes[i].from = {recording.streams[0].name};
    }
  return nodes;
}

/// Only what the wanted nodes need.
std::vector<NodeSpec> ancestors(const Recording& recording, const std::vector<NodeSpec>& nodes,
                                const std::set<std::string>& wanted) {
  const auto known = known_names(recording, nodes);
  std::set<std::string> need = wanted;
  for (bool grew = true; grew;) {
    grew = false;
    for (auto& n : nodes)
      if (need.contains(n.name))
        for (auto& ref : n.from) grew |= need.insert(reference_name(ref, known)).second;
  }
  std::vector<NodeSpec> kept;
  for (auto& n : nodes)
    if (need.contains(n.name)) kept.push_back(n);
  return kept;
}

/// One input as it is read step by step.
struct Reader {
  const Stream* stream = nullptr;
  std::int64_t first = 0, end = 0, next = 0;
  StreamFormat format;        ///< with start_s of the first frame read
  std::vector<Event> events;  ///< of the range, by onset
  std::size_t next_event = 0;
};

/// The step every input takes together: time-axis inputs up to a common time, item inputs a block of items.
class Steps {
 public:
  Steps(std::vector<Reader> readers, Index block) : readers_(std::move(readers)), block_(block) {
    for (auto& r : readers_)
      if (r.format.axis == Axis::time) {
        fastest_ = std::max(fastest_, r.format.rate_hz);
        start_ = std::min(start_, r.format.start_s);
      }
  }
  std::vector<Reader>& readers() { return readers_; }
  bool done() const {
    return std::all_of(readers_.begin(), readers_.end(), [](auto& r) { return r.next >= r.end; });
  }
  double fraction() const {
    std::int64_t at = 0, all = 0;
    for (auto& r : readers_) at += r.next - r.first, all += r.end - r.first;
    return all ? static_cast<double>(at) / static_cast<double>(all) : 1.0;
  }
  /// Fills the slot's inputs with the next step.
  void fill(Graph& graph, Slot& slot) {
    ++step_;
    graph.clear(slot);
    const double until = start_ + static_cast<double>(step_) * static_cast<double>(block_) / fastest_;
    for (std::size_t i = 0; i < readers_.size(); ++i) {
      auto& r = readers_[i];
      std::int64_t stop = r.next + block_;
      if (r.format.axis == Axis::time)
        stop = std::min(
            stop, r.first + static_cast<std::int64_t>(std::ceil((until - r.format.start_s) * r.format.rate_hz - 1e-6)));
      stop = std::clamp(stop, r.next, r.end);
      const Index n = stop - r.next;
      if (n == 0) continue;
      const auto room = graph.input_room(slot, static_cast<int>(i)).slice(0, n);
      r.stream->samples->read(r.next, room);
      Block b;
      b.x = room;
      b.first_frame = r.next - r.first;
      if (r.format.axis == Axis::item)
        b.keys = std::span(r.stream->keys).subspan(static_cast<std::size_t>(r.next), static_cast<std::size_t>(n));
      r.next = stop;
      const double end_s = r.format.time_of(r.next - r.first);
      const auto from = r.next_event;
      while (r.next_event < r.events.size() && r.events[r.next_event].onset_s < end_s) ++r.next_event;
      b.events = std::span(r.events).subspan(from, r.next_event - from);
      graph.load(slot, static_cast<int>(i), b);
    }
  }

 private:
  std::vector<Reader> readers_;
  Index block_;
  double fastest_ = 0, start_ = HUGE_VAL;
  std::int64_t step_ = 0;
};

Context context_of(const RunOptions& o) {
  Context c;
  c.seed = o.seed;
  c.threads = 1;
  c.counters = o.counters;
  c.cancelled = o.cancelled;
  return c;
}

std::vector<InputSpec> inputs_of(const Recording& recording, const std::vector<std::string>& names) {
  std::vector<InputSpec> inputs;
  for (auto& n : names) inputs.push_back({n, recording.stream(n, "from").format});
  return inputs;
}

/// A whole-recording stage that works row by row: its input is written in tiles of rows, each tile runs alone.
struct TiledSource final : SampleSource {
  std::vector<std::unique_ptr<Spool>> tiles;
  std::int64_t frames() const override { return tiles.empty() ? 0 : tiles[0]->frames(); }
  void read(std::int64_t first, MutableFrames out) const override {
    Index row = 0;
    for (auto& t : tiles) {
      t->read(first, out.part(row, t->rows()));
      row += t->rows();
    }
  }
};

StreamFormat rows_of(const StreamFormat& f, Index first, Index n) {
  StreamFormat tile = f;
  Part p;
  p.name = f.parts[0].name;
  p.unit = f.parts[0].unit;
  p.shape = {n};
  const auto names = f.row_names();
  for (Index r = first; r < first + n; ++r) {
    Channel c;
    const bool known = f.parts.size() == 1 && static_cast<Index>(f.parts[0].rows.size()) == f.size();
    if (known) c = f.parts[0].rows[static_cast<std::size_t>(r)];
    else c.name = names[static_cast<std::size_t>(r)];
    p.rows.push_back(std::move(c));
  }
  tile.parts = {p};
  return tile;
}

Stream run_tiled(const Registry& registry, const NodeSpec& spec, const StreamFormat& in, const StreamFormat& out_format,
                 const std::function<void(const SinkFn&)>& feed, std::int64_t expected_frames,
                 const RunOptions& options) {
  // a tile's input, its output and the stage's own copy should fit in about 64 MB
  const Index bytes_per_row = std::max<Index>(1, expected_frames) * 8 * 3;
  const Index rows = std::clamp<Index>((64 << 20) / bytes_per_row, 1, in.size());
  const Index count = (in.size() + rows - 1) / rows;
  std::vector<std::unique_ptr<Spool>> input;
  for (Index t = 0; t < count; ++t)
    input.push_back(std::make_unique<Spool>(std::min(rows, in.size() - t * rows), in.scalar, options.spool,
                                            (64u << 20) / static_cast<std::size_t>(count)));
  feed([&](const Block& b) {
    for (Index t = 0; t < count; ++t)
      input[static_cast<std::size_t>(t)]->append(b.x.part(t * rows, input[static_cast<std::size_t>(t)]->rows()));
  });
  auto result = std::make_shared<TiledSource>();
  result->tiles.resize(static_cast<std::size_t>(count));
  in_parallel(static_cast<std::size_t>(count), options.threads, [&](std::size_t tile) {
    const auto t = static_cast<Index>(tile);
    Context context = context_of(options);
    context.node = spec.name;
    context.check_cancel();
    auto& source = *input[static_cast<std::size_t>(t)];
    auto stage = registry.at(spec.use, spec.where).make(spec.params, spec.model.get(), spec.where);
    auto format = rows_of(in, t * rows, source.rows());
    format.max_frames = options.block;
    const auto out = stage->prepare(format, context);
    auto sink =
        std::make_unique<Spool>(out.size(), in.scalar, options.spool, (64u << 20) / static_cast<std::size_t>(count));
    std::vector<std::byte> x(static_cast<std::size_t>(format.size() * options.block) * bytes_of(in.scalar));
    std::vector<std::byte> y(static_cast<std::size_t>(out.size() * out.max_frames) * bytes_of(in.scalar));
    Output o;
    o.y = MutableFrames(y.data(), in.scalar, out.size(), out.max_frames, out.size());
    for (std::int64_t at = 0; at < source.frames(); at += options.block) {
      const Index n = std::min<Index>(options.block, source.frames() - at);
      MutableFrames room(x.data(), in.scalar, format.size(), n, format.size());
      source.read(at, room);
      Block b;
      b.x = room;
      b.first_frame = at;
      if (const Index given = stage->process(b, o)) sink->append(ConstFrames(o.y).slice(0, given));
    }
    while (const Index given = stage->flush(o)) sink->append(ConstFrames(o.y).slice(0, given));
    input[static_cast<std::size_t>(t)].reset();
    result->tiles[static_cast<std::size_t>(t)] = std::move(sink);
  });
  Stream s;
  s.name = spec.name;
  s.format = out_format;
  s.samples = std::move(result);
  return s;
}

/// What every buffer of a run is counted in: with 100 000 voxels, 4096 frames would be 1.6 GB a buffer.
Index frames_in_block(const RunOptions& options, const std::vector<InputSpec>& inputs) {
  Index widest = 1;
  for (auto& i : inputs) widest = std::max(widest, i.format.size());
  return std::clamp<Index>(kBlockBytes / (widest * static_cast<Index>(bytes_of(options.precision))), 1, options.block);
}

std::map<std::string, StreamFormat> run_streaming(const Registry& registry, const Recording& recording,
                                                  const std::vector<NodeSpec>& nodes, const RunOptions& options,
                                                  const std::map<std::string, SinkFn>& sinks) {
  auto names = input_names(recording, nodes);
  for (auto& [name, sink] : sinks)
    if (recording.find(name) && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  std::vector<Reader> readers;
  std::vector<InputSpec> inputs = inputs_of(recording, names);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const Stream& s = recording.stream(names[i], "from");
    Reader r;
    r.stream = &s;
    r.format = s.format;
    r.end = s.frames();
    if (s.format.axis == Axis::time) r.events = recording.events;
    inputs[i].format = r.format;
    readers.push_back(std::move(r));
  }

  const Index block = frames_in_block(options, inputs);
  Graph graph(registry, inputs, nodes, options.precision, block, context_of(options));
  std::map<std::string, StreamFormat> formats;
  std::exception_ptr failure;  // of the last filter; the first one only looks at the flag
  std::atomic<bool> failed{false};
  for (auto& [name, sink] : sinks) {
    const int i = graph.index_of(name);
    if (i < 0) throw ConfigError(name, "", "a node or stream to take frames from");
    formats[name] = graph.format(i);
    graph.on_output(i, [&failure, &failed, s = sink](const Block& b) {
      if (failed) return;
      try {
        s(b);
      } catch (...) {
        failure = std::current_exception();
        failed = true;
      }
    });
  }
  Steps steps(std::move(readers), block);
  const int total = static_cast<int>(graph.names().size()), first_node = static_cast<int>(graph.input_count());
  auto stop = [&] { return steps.done() || failed || (options.cancelled && options.cancelled()); };

  if (options.threads <= 1 || graph.node_count() == 0) {
    Slot slot = graph.make_slot();
    while (!stop()) {
      steps.fill(graph, slot);
      for (int i = 0; i < total; ++i) {
        if (i >= first_node) graph.run_node(i, slot);
        graph.deliver(i, slot);
      }
      if (options.progress) options.progress(steps.fraction(), "streaming");
    }
  } else {
    const auto tokens = static_cast<std::size_t>(std::max(2, options.tokens));
    graph.prepare_workers(static_cast<int>(tokens));
    std::vector<Slot> slots;
    for (std::size_t t = 0; t < tokens; ++t) slots.push_back(graph.make_slot());
    std::size_t next = 0;
    using oneapi::tbb::filter_mode;
    // for the sanitizer: a block is handed from filter to filter, and each serial filter from block to block
    static char begun, done;  // static: a filter must not read what it captured before it has received it
    std::vector<char> serial_marks(static_cast<std::size_t>(total) + 1);
    const auto turn = [&](int filter, bool serial, Slot* slot, auto&& work) {
      void* mark = serial ? static_cast<void*>(&serial_marks[static_cast<std::size_t>(filter)]) : slot;
      receive(slot);
      receive(mark);
      const HandOverAtEnd slot_at_end(slot), mark_at_end(mark), at_end(&done);
      work(*slot);
      return slot;
    };
    // tokens leave in order, so the slot of block k is free again when block k + tokens enters
    const auto first = [&](oneapi::tbb::flow_control& control) -> Slot* {
      receive(&begun);
      receive(&serial_marks[0]);
      const HandOverAtEnd mark_at_end(&serial_marks[0]), at_end(&done);
      if (stop()) {
        control.stop();
        return nullptr;
      }
      return turn(0, true, &slots[next++ % tokens], [&](Slot& slot) {
        steps.fill(graph, slot);
        if (options.progress) options.progress(steps.fraction(), "streaming");
      });
    };
    auto chain = oneapi::tbb::make_filter<void, Slot*>(filter_mode::serial_in_order, first);
    for (int i = first_node; i < total; ++i) {
      const bool any_order = graph.any_order(i);
      const auto node = [&, i, any_order](Slot* s) {
        receive(&begun);
        return turn(i, !any_order, s, [&](Slot& slot) { graph.run_node(i, slot); });
      };
      chain = chain & oneapi::tbb::make_filter<Slot*, Slot*>(
                          any_order ? filter_mode::parallel : filter_mode::serial_in_order, node);
    }
    auto last = oneapi::tbb::make_filter<Slot*, void>(filter_mode::serial_in_order, [&](Slot* s) {
      receive(&begun);
      turn(total, true, s, [&](Slot& slot) {
        for (int i = 0; i < total; ++i) graph.deliver(i, slot);
      });
    });
    hand_over(&begun);
    const ReceiveAtEnd at_end(&done);
    oneapi::tbb::task_arena arena(options.threads);
    arena.execute([&] { oneapi::tbb::parallel_pipeline(tokens, chain & last); });
  }
  if (failure) std::rethrow_exception(failure);
  if (options.cancelled && options.cancelled()) throw Interrupted();
  graph.flush();
  if (failure) std::rethrow_exception(failure);
  if (options.counters) {
    if (auto n = graph.lost_events()) options.counters->get("graph", "lost_events").add(n);
    if (auto n = graph.dropped_items()) options.counters->get("graph", "dropped_items").add(n);
  }
  return formats;
}

/// A live recording, step by step as it was given to its graph.
std::map<std::string, StreamFormat> run_partition(const Registry& registry, const Recording& recording,
                                                  const std::vector<NodeSpec>& nodes, const RunOptions& options,
                                                  const std::map<std::string, SinkFn>& sinks) {
  const LivePartition& partition = *recording.partition;
  const std::size_t n_inputs = partition.inputs.size();
  Graph graph(registry, inputs_of(recording, partition.inputs), nodes, options.precision,
              std::max<Index>(partition.largest(), 1), context_of(options));
  std::map<std::string, StreamFormat> formats;
  std::exception_ptr failure;  // a sink may throw, the graph may not
  for (auto& [name, sink] : sinks) {
    const int i = graph.index_of(name);
    if (i < 0) throw ConfigError(name, "", "a node or stream to take frames from");
    formats[name] = graph.format(i);
    graph.on_output(i, [&failure, s = sink](const Block& b) {
      if (failure) return;
      try {
        s(b);
      } catch (...) {
        failure = std::current_exception();
      }
    });
  }
  struct Input {
    const Stream* stream = nullptr;
    std::int64_t next = 0;
    std::vector<std::byte> room;
    std::vector<std::uint8_t> masked;
  };
  std::vector<Input> inputs(n_inputs);
  for (std::size_t i = 0; i < n_inputs; ++i) {
    const StreamFormat& f = graph.format(static_cast<int>(i));
    inputs[i].stream = &recording.stream(partition.inputs[i], "partition");
    inputs[i].room.resize(static_cast<std::size_t>(f.size() * f.max_frames) * bytes_of(f.scalar));
    inputs[i].masked.resize(static_cast<std::size_t>(f.size()));
  }
  const auto apply_masks = [](auto frames, const std::vector<std::uint8_t>& masked) {
    for (Index k = 0; k < frames.frames; ++k)
      for (std::size_t row = 0; row < masked.size(); ++row)
        if (masked[row]) frames.frame(k)[row] = std::numeric_limits<double>::quiet_NaN();
  };
  std::int64_t total = 0, number = 0;
  for (auto& s : partition.steps) total += s.repeat;
  auto action = partition.actions.begin();
  std::vector<Event> events;
  using Kind = LivePartition::Action::Kind;
  for (auto& step : partition.steps)
    for (std::int64_t r = 0; r < step.repeat; ++r, ++number) {
      if (options.cancelled && options.cancelled()) throw Interrupted();
      Input& input = inputs.at(static_cast<std::size_t>(step.input));
      events.clear();
      for (; action != partition.actions.end() && action->step <= number; ++action) {
        auto& masked = inputs
                           .at(static_cast<std::size_t>(std::min<std::size_t>(
                               static_cast<std::size_t>(std::max(action->input, 0)), n_inputs - 1)))
                           .masked;
        if (action->kind == Kind::event) {
          events.push_back(action->event);
        } else if (action->kind != Kind::swap) {
          if (action->row >= 0 && action->row < static_cast<Index>(masked.size()))
            masked[static_cast<std::size_t>(action->row)] = action->kind == Kind::mask;
        } else if (const int at = graph.index_of(action->node); at >= 0) {  // else it is above no sink
          const auto spec = std::find_if(nodes.begin(), nodes.end(), [&](auto& n) { return n.name == action->node; });
          const Model model = Model::load(action->model);
          graph.swap(at, registry.at(spec->use, spec->where).make(spec->params, &model, spec->where));
        }
      }
      const StreamFormat& f = graph.format(step.input);
      const MutableFrames room(input.room.data(), f.scalar, f.size(), step.frames, f.size());
      input.stream->samples->read(input.next, room);
      if (std::find(input.masked.begin(), input.masked.end(), 1) != input.masked.end()) {
        if (f.scalar == Scalar::f32) apply_masks(room.as<float>(), input.masked);
        else apply_masks(room.as<double>(), input.masked);
      }
      Block block;
      block.x = room;
      block.first_frame = input.next;
      block.events = events;
      input.next += step.frames;
      graph.push(step.input, block);
      if (failure) std::rethrow_exception(failure);
      if (options.progress && number % 256 == 0)
        options.progress(static_cast<double>(number) / static_cast<double>(total), "streaming");
    }
  if (partition.finished) graph.flush();
  if (failure) std::rethrow_exception(failure);
  if (options.counters) {
    if (auto n = graph.lost_events()) options.counters->get("graph", "lost_events").add(n);
    if (auto n = graph.dropped_items()) options.counters->get("graph", "dropped_items").add(n);
  }
  return formats;
}

/// The partition holds for a pipeline that reads what the live one read.
bool follows_partition(const Recording& recording, const std::vector<NodeSpec>& nodes) {
  if (!recording.partition || recording.partition->inputs.empty()) return false;
  const auto& inputs = recording.partition->inputs;
  const auto names = input_names(recording, nodes);
  return std::all_of(names.begin(), names.end(),
                     [&](auto& n) { return std::find(inputs.begin(), inputs.end(), n) != inputs.end(); });
}

}  // namespace

std::vector<std::string> input_names(const Recording& recording, const std::vector<NodeSpec>& given) {
  const auto nodes = with_sources(recording, given);
  const auto known = known_names(recording, nodes);
  std::vector<std::string> names;
  for (auto& n : nodes)
    for (auto& ref : n.from) {
      const auto name = reference_name(ref, known);
      if (recording.find(name) && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  return names;
}

StreamFormat edge_format(const Registry& registry, const Recording& recording, const std::vector<NodeSpec>& given,
                         const RunOptions& options, const std::string& name) {
  if (const Stream* s = recording.find(name)) return s->format;
  const auto nodes = ancestors(recording, with_sources(recording, given), {name});
  Graph graph(registry, inputs_of(recording, input_names(recording, nodes)), nodes, options.precision, 1,
              context_of(options));
  const int i = graph.index_of(name);
  if (i < 0) throw ConfigError(name, "", "a node or stream to take frames from");
  return graph.format(i);
}

std::map<std::string, StreamFormat> run_offline(const Registry& registry, const Recording& recording,
                                                const std::vector<NodeSpec>& given, const RunOptions& options,
                                                const std::map<std::string, SinkFn>& sinks) {
  std::set<std::string> wanted;
  for (auto& [name, sink] : sinks) wanted.insert(name);
  auto nodes = ancestors(recording, with_sources(recording, given), wanted);
  if (follows_partition(recording, nodes)) return run_partition(registry, recording, nodes, options, sinks);

  // whole-recording stages that work row by row leave the stream: what they give becomes an input of the rest
  Graph plan(registry, inputs_of(recording, input_names(recording, nodes)), nodes, options.precision, 1,
             context_of(options));
  for (int i = static_cast<int>(plan.input_count()); i < static_cast<int>(plan.names().size()); ++i) {
    const auto traits = plan.traits(i);
    if (!traits.per_row || traits.memory_frames != Traits::kAllFrames) continue;
    const auto& name = plan.names()[static_cast<std::size_t>(i)];
    const auto spec = *std::find_if(nodes.begin(), nodes.end(), [&](auto& n) { return n.name == name; });
    if (spec.from.size() != 1) continue;  // its join is part of the graph
    const auto known = known_names(recording, nodes);
    const auto source = reference_name(spec.from[0], known);
    const int source_index = plan.index_of(source);
    if (source != spec.from[0] || plan.format(source_index).axis != Axis::time) continue;
    const StreamFormat& in = plan.format(source_index);
    std::int64_t expected = 0;
    for (auto& n : input_names(recording, nodes)) expected = std::max(expected, recording.stream(n, "from").frames());
    double shift = 0;
    Recording rest = recording;
    auto made = run_tiled(
        registry, spec, in, plan.format(i),
        [&](const SinkFn& sink) {
          const auto formats = run_offline(registry, recording, nodes, options, {{source, sink}});
          shift = formats.at(source).start_s - in.start_s;
        },
        expected, options);
    made.format.start_s += shift;
    std::erase_if(rest.streams, [&](auto& s) { return s.name == name; });
    rest.streams.push_back(made);
    std::erase_if(nodes, [&](auto& n) { return n.name == name; });
    return run_offline(registry, rest, nodes, options, sinks);
  }
  return run_streaming(registry, recording, nodes, options, sinks);
}

}  // namespace percept
