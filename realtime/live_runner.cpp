#include "realtime/live_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include "core/error.h"

namespace percept {

namespace {
std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
std::string place(const NodeSpec& node) { return node.where.empty() ? node.name : node.where; }

Context context_of(const LiveOptions& o) {
  Context c;
  c.seed = o.seed;
  c.counters = o.counters;
  return c;
}

constexpr const char* kIdentity = "identity of the live runner";
/// Hands a join on, so that it goes through a queue as one edge.
class Identity final : public Stage {
 public:
  using Params = NoParams;
  explicit Identity(Params) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block& in, Output& out) noexcept override {
    copy_frames(in.x, out.y.slice(0, in.x.frames));
    std::copy(in.keys.begin(), in.keys.end(), out.keys);
    return in.x.frames;
  }
  void reset() noexcept override {}
};
StageInfo info_identity() {
  StageInfo info = stage_info<Identity>(kIdentity, "realtime", "Hands a join on to its queue.");
  info.samples = [] { return std::vector{Sample{}}; };
  return info;
}
}  // namespace

/// Nodes that run on one thread: those of push(), or a node with a queue and what is below it.
struct LiveRunner::Section {
  std::vector<NodeSpec> nodes;
  Section* above = nullptr;  ///< where its frames come from; none for the first
  std::string source;        ///< the edge there
  std::unique_ptr<Graph> graph;
  std::vector<Label> swap_labels;    ///< by index in the graph; "" for an input
  std::vector<const Stage*> stages;  ///< by index in the graph, to see which were swapped
  std::int64_t swaps_seen = 0;
  double time_s = 0;  ///< recording time of what runs now
  struct Feed {
    int edge = 0;
    Section* to = nullptr;
  };
  std::vector<Feed> feeds;
  // behind a queue only
  std::unique_ptr<BlockQueue> queue;
  std::vector<std::byte> missing;  ///< NaN for one block
  SpscRing<Event> swapped{64};     ///< to be told by the thread of push()
  Counter untold;
  std::thread thread;

  void watch() {
    for (int i = 0; i < static_cast<int>(graph->names().size()); ++i) {
      const bool is_input = i < static_cast<int>(graph->input_count());
      stages.push_back(is_input ? nullptr : &graph->stage(i));
      swap_labels.push_back(is_input ? Label() : Label::of("swap " + graph->names()[static_cast<std::size_t>(i)]));
    }
    graph->on_step([this](const Slot& slot) {
      for (auto& feed : feeds)
        if (const Block block = graph->view(feed.edge, slot); block.x.frames) feed.to->queue->push(block, time_s);
    });
  }
  /// Calls tell(event) for each swap since the last call.
  template <class F>
  void look_for_swaps(F&& tell) noexcept {
    if (graph->swaps_done() == swaps_seen) return;
    swaps_seen = graph->swaps_done();
    for (std::size_t i = 0; i < stages.size(); ++i) {
      if (!stages[i] || stages[i] == &graph->stage(static_cast<int>(i))) continue;
      stages[i] = &graph->stage(static_cast<int>(i));
      tell(Event{.onset_s = time_s, .label = swap_labels[i]});
    }
  }

  void push(const Block& block) noexcept {
    graph->push(0, block);
    look_for_swaps([this](const Event& e) {
      if (!swapped.push(e)) untold.add();
    });
  }
  /// What the thread does.
  void run() noexcept {
    const bool skip_lost = nodes[0].queue == "newest";
    const StreamFormat& format = graph->format(0);
    BlockQueue::Taken taken;
    while (queue->next(taken)) {
      time_s = taken.time_s;
      Block lost;
      lost.first_frame = taken.block.first_frame - taken.lost_frames;
      lost.events = taken.lost_events;
      lost.missing = skip_lost;
      for (std::int64_t left = taken.lost_frames; left > 0 && !queue->stopped(); left -= lost.x.frames) {
        lost.x = ConstFrames(missing.data(), format.scalar, format.size(), std::min<Index>(left, format.max_frames),
                             format.size());
        push(lost);
        lost.first_frame += lost.x.frames;
        lost.events = {};
      }
      push(taken.block);
    }
    if (!queue->stopped()) graph->flush();
    for (auto& feed : feeds) feed.to->queue->close();
  }
};

LiveRunner::LiveRunner(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> nodes,
                       LiveOptions options)
    : registry_(registry), nodes_(std::move(nodes)), options_(options), gap_label_(Label::of("gap")) {
  const Context context = context_of(options);
  sections_.push_back(std::make_unique<Section>());
  Section& first = *sections_[0];
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].from.empty() && i > 0) nodes_[i].from = {nodes_[i - 1].name};

  // the whole as one graph: refuses what no runner takes, and says what the sections have to be
  auto whole = std::make_unique<Graph>(registry_, inputs, nodes_, options.precision, options.block, context);
  names_ = whole->names();
  std::map<std::string, Section*> section_of;
  const auto section_of_reference = [&](const std::string& reference) {
    const auto known = section_of.find(reference);
    return known != section_of.end() ? known->second : section_of.at(reference.substr(0, reference.rfind('.')));
  };
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const std::string& name = names_[i];
    if (i < inputs.size()) {
      section_of[name] = &first;
      continue;
    }
    NodeSpec node = *std::find_if(nodes_.begin(), nodes_.end(), [&](auto& n) { return n.name == name; });
    if (node.from.empty()) node.from = {names_[0]};
    const Traits traits = whole->traits(static_cast<int>(i));
    const std::string& twin = registry_.at(node.use, place(node)).causal_twin;
    if (!traits.causal)
      throw ConfigError(place(node) + ".use", "\"" + node.use + "\"",
                        twin.empty() ? "a causal stage: this one looks ahead"
                                     : fmt::format("a causal stage when live: \"{}\"", twin));
    Section* section = section_of_reference(node.from[0]);
    for (auto& from : node.from)
      if (const Section* other = section_of_reference(from); other != section) {
        const auto thread = [](const Section& s) {
          return s.nodes.empty() || s.nodes[0].queue.empty() ? std::string("no queue")
                                                             : fmt::format("the queue of '{}'", s.nodes[0].name);
        };
        throw ConfigError(place(node) + ".from", "",
                          fmt::format("inputs of one thread when live, but '{}' comes from {} and '{}' from {} (join "
                                      "first and queue the join)",
                                      node.from[0], thread(*section), from, thread(*other)));
      }
    if (!node.queue.empty()) {
      if (node.from.size() > 1) {
        NodeSpec join;
        join.name = name + " (join)";
        join.use = kIdentity;
        join.from = node.from;
        join.align = node.align;
        join.where = node.where;
        node.from = {join.name};
        section->nodes.push_back(join);
        section_of[join.name] = section;
      }
      const auto above = section;
      section = sections_.emplace_back(std::make_unique<Section>()).get();
      section->above = above;
      section->source =
          section_of.contains(node.from[0]) ? node.from[0] : node.from[0].substr(0, node.from[0].rfind('.'));
    } else if (options_.require_real_time && !traits.real_time && section == &first) {
      throw ConfigError(
          place(node) + ".use", "\"" + node.use + "\"",
          "a real-time stage: this one may allocate or take unbounded time (queue = \"newest\" runs it on "
          "a thread of its own)");
    }
    section_of[name] = section;
    section->nodes.push_back(node);
  }

  if (sections_.size() == 1) {
    first.graph = std::move(whole);
    first.watch();
  } else {
    whole.reset();
    registry_.add(info_identity());
    for (auto& s : sections_) {
      if (s->above) {
        const Graph& above = *s->above->graph;
        const int edge = above.index_of(s->source);
        const StreamFormat& format = above.format(edge);
        const NodeSpec& node = s->nodes[0];
        s->queue =
            std::make_unique<BlockQueue>(format, queue_policy(node.queue, place(node)), node.queue_blocks, place(node));
        s->graph = std::make_unique<Graph>(registry_, std::vector<InputSpec>{{s->source, format}}, s->nodes,
                                           options.precision, format.max_frames, context);
        s->missing.resize(static_cast<std::size_t>(format.size() * format.max_frames) * bytes_of(format.scalar));
        fill_missing({s->missing.data(), format.scalar, format.size(), format.max_frames, format.size()});
        s->above->feeds.push_back({edge, s.get()});
      } else {
        s->graph = std::make_unique<Graph>(registry_, inputs, s->nodes, options.precision, options.block, context);
      }
      s->watch();
    }
  }

  Index widest = 0;
  for (int i = 0; i < static_cast<int>(inputs.size()); ++i) {
    const StreamFormat& f = first.graph->format(i);
    if (f.axis != Axis::time)
      throw ConfigError(names_[static_cast<std::size_t>(i)], f.describe(),
                        "a stream with a clock: items do not come live");
    const double max_gap = std::floor(options_.max_gap_s * f.rate_hz);
    if (!(max_gap >= 0 && max_gap < 1e15))
      throw ConfigError("max_gap_s", fmt::format("{}", options_.max_gap_s), "a time of zero or more [s]");
    clocks_.push_back({options_.first_counter.value_or(0), 0, options_.first_counter.has_value(),
                       static_cast<std::int64_t>(max_gap)});
    widest = std::max(widest, f.size());
  }
  missing_.resize(static_cast<std::size_t>(widest * options_.block) * bytes_of(options_.precision));
  fill_missing({missing_.data(), options_.precision, widest, options_.block, widest});

  try {
    for (auto& s : sections_)
      if (s->queue) s->thread = std::thread([section = s.get()] { section->run(); });
  } catch (...) {
    end_threads();
    throw;
  }
}

LiveRunner::~LiveRunner() { end_threads(); }

void LiveRunner::end_threads() noexcept {
  for (auto& s : sections_)
    if (s->queue) s->queue->stop();
  for (auto& s : sections_)
    if (s->thread.joinable()) s->thread.join();
}

LiveRunner::Place LiveRunner::place_of(const std::string& node) const {
  // what a section takes has the name of the node above, which comes first
  for (auto& s : sections_)
    if (const int i = s->graph->index_of(node); i >= 0) return {s.get(), i};
  throw ConfigError("live", "\"" + node + "\"",
                    fmt::format("a node: {}{}", fmt::join(names_, ", "), did_you_mean(node, names_)));
}

const StreamFormat& LiveRunner::format(const std::string& node) const {
  const Place at = place_of(node);
  return at.section->graph->format(at.index);
}
void LiveRunner::on_output(const std::string& node, SinkFn sink) {
  const Place at = place_of(node);
  at.section->graph->on_output(at.index, std::move(sink));
}

void LiveRunner::push(const Packet& packet, int input) noexcept {
  const std::int64_t arrived = packet.received_ns ? packet.received_ns : now_ns();
  const auto drop = [&](Counter& counter) {
    counter.add();
    lost_events_.add(static_cast<std::int64_t>(packet.events.size()));
  };
  if (input < 0 || input >= static_cast<int>(clocks_.size()) || finished_) return drop(refused_packets_);
  const StreamFormat& format = sections_[0]->graph->format(input);
  Clock& clock = clocks_[static_cast<std::size_t>(input)];
  if (packet.x.rows != format.size() || packet.x.frames <= 0) return drop(refused_packets_);
  if (!clock.started) {
    clock.first = packet.counter;
    clock.started = true;
  }
  std::int64_t at = 0, end = 0, missing = 0;  // frame index of the packet, past its end; a counter is never trusted
  if (__builtin_sub_overflow(packet.counter, clock.first, &at) || __builtin_add_overflow(at, packet.x.frames, &end) ||
      __builtin_sub_overflow(at, clock.next, &missing) || missing > clock.max_gap)
    return drop(refused_packets_);
  if (end <= clock.next) return drop(late_packets_);

  if (missing > 0) {
    gaps_.add();
    missing_frames_.add(missing);
    if (event_sink_)
      event_sink_({.onset_s = format.time_of(clock.next),
                   .duration_s = static_cast<double>(missing) / format.rate_hz,
                   .value = static_cast<double>(missing),
                   .label = gap_label_});
    for (std::int64_t left = missing; left > 0;) {
      const Index n = std::min<Index>(left, options_.block);
      give(input, ConstFrames(missing_.data(), options_.precision, format.size(), n, format.size()), {});
      left -= n;
    }
  }
  // frames that overlap what is already there, and the events that came with them
  const Index repeated = std::max<Index>(0, -missing);
  repeated_frames_.add(repeated);
  auto events = packet.events;
  if (repeated > 0) {
    const double known_s = format.time_of(clock.next);
    while (!events.empty() && events.front().onset_s < known_s) {
      events = events.subspan(1);
      lost_events_.add();
    }
  }
  packets_.add();
  frames_.add(packet.x.frames - repeated);
  for (Index k = repeated; k < packet.x.frames; k += options_.block) {
    give(input, packet.x.slice(k, std::min(options_.block, packet.x.frames - k)), events);
    events = {};  // the graph holds them until their time
  }
  latency_.add(now_ns() - arrived);
}

void LiveRunner::give(int input, ConstFrames x, std::span<const Event> events) noexcept {
  Section& first = *sections_[0];
  Clock& clock = clocks_[static_cast<std::size_t>(input)];
  Block block;
  block.x = x;
  block.first_frame = clock.next;
  block.events = events;
  clock.next += x.frames;
  first.time_s = first.graph->format(input).time_of(block.first_frame);
  first.graph->push(input, block);
  tell_swaps();
}

void LiveRunner::tell_swaps() noexcept {
  const auto tell = [this](const Event& e) {
    if (event_sink_) event_sink_(e);
  };
  sections_[0]->look_for_swaps(tell);
  for (auto& s : sections_)
    while (const Event* e = s->swapped.front()) {
      tell(*e);
      s->swapped.pop();
    }
}

void LiveRunner::finish() noexcept {
  if (finished_) return;
  finished_ = true;
  for (auto& s : sections_)
    if (s->queue) s->queue->wait_for_room();
  sections_[0]->graph->flush();
  for (auto& feed : sections_[0]->feeds) feed.to->queue->close();
  for (auto& s : sections_)
    if (s->thread.joinable()) s->thread.join();
  tell_swaps();
}

void LiveRunner::swap(const std::string& node, std::shared_ptr<const Model> model) {
  const Place at = place_of(node);
  const auto spec = std::find_if(nodes_.begin(), nodes_.end(), [&](auto& n) { return n.name == node; });
  if (spec == nodes_.end() || !registry_.at(spec->use, place(*spec)).trained)
    throw ConfigError("swap", "\"" + node + "\"", "a node with a model");
  at.section->graph->swap(at.index,
                          registry_.at(spec->use, place(*spec)).make(spec->params, model.get(), place(*spec)));
}

LiveCounts LiveRunner::counts() const {
  LiveCounts counts{.packets = packets_.value(),
                    .frames = frames_.value(),
                    .gaps = gaps_.value(),
                    .missing_frames = missing_frames_.value(),
                    .late_packets = late_packets_.value(),
                    .repeated_frames = repeated_frames_.value(),
                    .refused_packets = refused_packets_.value(),
                    .lost_events = lost_events_.value(),
                    .swaps = 0,
                    .queues = {}};
  for (auto& s : sections_) {
    counts.lost_events += s->graph->lost_events() + s->untold.value();
    counts.swaps += s->graph->swaps_done();
    if (!s->queue) continue;
    counts.lost_events += s->queue->lost_events();
    counts.queues.push_back({s->queue->counts(), s->nodes[0].name});
  }
  return counts;
}

}  // namespace percept
