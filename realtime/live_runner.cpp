#include "realtime/live_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "core/error.h"

namespace percept {

namespace {
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

/// One input: the order of its packets, and which of its rows are masked.
struct LiveRunner::Input final : Sequencer::Taker {
  Input(LiveRunner& owner, int place, const StreamFormat& packets, const StreamFormat& blocks,
        Sequencer::Options options)
      : runner(owner), index(place), format(blocks), sequencer(packets, options),
        wanted(static_cast<std::size_t>(blocks.size())), masked(static_cast<std::size_t>(blocks.size()), 0) {
    masked_frames.resize(static_cast<std::size_t>(blocks.size() * blocks.max_frames) * sizeof(double));
  }
  void missing(std::int64_t first, std::int64_t frames) noexcept override;
  void frames(std::int64_t first, ConstFrames x, std::span<const Event> events, std::int64_t serial,
              Index skipped) noexcept override;

  LiveRunner& runner;
  int index;
  StreamFormat format;  ///< of the graph's input
  Sequencer sequencer;
  // masks: asked for by any thread, taken over between two blocks
  std::vector<std::atomic<std::uint8_t>> wanted;
  std::atomic<std::int64_t> wanted_version{0};
  std::int64_t version = 0;
  std::vector<std::uint8_t> masked;
  Index n_masked = 0;
  std::vector<std::byte> masked_frames;
};

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
      tell(Event{.onset_s = time_s, .id = graph->swap_tag(static_cast<int>(i)), .label = swap_labels[i]});
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
    : registry_(registry), nodes_(std::move(nodes)), options_(options), gap_label_(Label::of("gap")),
      mask_label_(Label::of("mask")), unmask_label_(Label::of("unmask")) {
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
    if (options_.hold_packets < 0 || options_.hold_packets > 1024)
      throw ConfigError("hold_packets", fmt::format("{}", options_.hold_packets), "0 to 1024 packets");
    StreamFormat packets = inputs[static_cast<std::size_t>(i)].format;
    packets.max_frames = std::max<Index>(packets.max_frames, 1);
    inputs_.push_back(std::make_unique<Input>(*this, i, packets, f,
                                              Sequencer::Options{.max_gap = static_cast<std::int64_t>(max_gap),
                                                                 .hold = options_.hold_packets,
                                                                 .first = options_.first_counter}));
    widest = std::max(widest, f.size());
  }
  missing_.resize(static_cast<std::size_t>(widest * options_.block) * bytes_of(options_.precision));
  fill_missing({missing_.data(), options_.precision, widest, options_.block, widest});
  step_events_.reserve(1024);
  if (options_.time_nodes)
    for (auto& s : sections_) {
      std::vector<LatencyHistogram*> took(s->graph->names().size(), nullptr);
      for (std::size_t i = s->graph->input_count(); i < took.size(); ++i) {
        node_histograms_.push_back(std::make_unique<LatencyHistogram>());
        took[i] = node_histograms_.back().get();
        node_times_.push_back({s->graph->names()[i], took[i]});
      }
      s->graph->on_time([took](int i, std::int64_t ns) { took[static_cast<std::size_t>(i)]->add(ns); });
    }

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
bool LiveRunner::on_push_thread(const std::string& node) const { return place_of(node).section == sections_[0].get(); }
void LiveRunner::on_output(const std::string& node, SinkFn sink) {
  const Place at = place_of(node);
  at.section->graph->on_output(at.index, std::move(sink));
}

Fate LiveRunner::push(const Packet& given, int input) noexcept {
  Packet packet = given;
  if (packet.received_ns == 0) packet.received_ns = steady_ns();
  const std::int64_t serial = pushed_++;
  if (input < 0 || input >= static_cast<int>(inputs_.size()) || finished_) {
    refused_packets_.add();
    lost_events_.add(static_cast<std::int64_t>(packet.events.size()));
    return Fate::refused;
  }
  Input& to = *inputs_[static_cast<std::size_t>(input)];
  const Fate fate = to.sequencer.push(packet, serial, to);
  if (fate == Fate::used) latency_.add(steady_ns() - packet.received_ns);
  return fate;
}

void LiveRunner::release(int input) noexcept {
  Input& of = *inputs_[static_cast<std::size_t>(input)];
  of.sequencer.release(of);
}
void LiveRunner::give_up(std::int64_t frames, int input) noexcept {
  Input& of = *inputs_[static_cast<std::size_t>(input)];
  of.sequencer.give_up(frames, of);
}
std::int64_t LiveRunner::next_frame(int input) const noexcept {
  return inputs_[static_cast<std::size_t>(input)]->sequencer.next();
}
std::int64_t LiveRunner::first_counter(int input) const noexcept {
  return inputs_[static_cast<std::size_t>(input)]->sequencer.first_counter();
}
Index LiveRunner::held(int input) const noexcept { return inputs_[static_cast<std::size_t>(input)]->sequencer.held(); }

bool LiveRunner::post(const Event& event) {
  std::lock_guard lock(post_mutex_);
  return posted_.push(event);
}

bool LiveRunner::tell(const Event& event) noexcept {
  if (told_.push(event)) return true;
  lost_events_.add();
  return false;
}

void LiveRunner::mask(int input, Index row, bool masked) {
  if (input < 0 || input >= static_cast<int>(inputs_.size()))
    throw ConfigError("mask", fmt::format("input {}", input), fmt::format("an input from 0 to {}", inputs_.size() - 1));
  Input& of = *inputs_[static_cast<std::size_t>(input)];
  if (row < 0 || row >= of.format.size())
    throw ConfigError("mask", fmt::format("row {}", row), fmt::format("a row from 0 to {}", of.format.size() - 1));
  of.wanted[static_cast<std::size_t>(row)].store(masked, std::memory_order_relaxed);
  of.wanted_version.fetch_add(1, std::memory_order_release);
}

void LiveRunner::Input::missing(std::int64_t first, std::int64_t frames) noexcept {
  if (runner.event_sink_)
    runner.event_sink_({.onset_s = format.time_of(first),
                        .duration_s = static_cast<double>(frames) / format.rate_hz,
                        .value = static_cast<double>(frames),
                        .label = runner.gap_label_});
  for (std::int64_t done = 0; done < frames;) {
    const Index n = std::min<Index>(frames - done, format.max_frames);
    runner.give(*this, ConstFrames(runner.missing_.data(), format.scalar, format.size(), n, format.size()), {},
                {.input = index, .first_frame = first + done, .frames = n, .packet = -1, .offset = 0, .events = {}});
    done += n;
  }
}

void LiveRunner::Input::frames(std::int64_t first, ConstFrames x, std::span<const Event> events, std::int64_t serial,
                               Index skipped) noexcept {
  for (Index k = 0; k < x.frames; k += format.max_frames) {
    const Index n = std::min(format.max_frames, x.frames - k);
    runner.give(
        *this, x.slice(k, n), events,
        {.input = index, .first_frame = first + k, .frames = n, .packet = serial, .offset = skipped + k, .events = {}});
    events = {};  // the graph holds them until their time
  }
}

void LiveRunner::apply_masks(Input& input) noexcept {
  const std::int64_t version = input.wanted_version.load(std::memory_order_acquire);
  if (version == input.version) return;
  input.version = version;
  for (std::size_t row = 0; row < input.masked.size(); ++row) {
    const std::uint8_t wanted = input.wanted[row].load(std::memory_order_relaxed);
    if (wanted == input.masked[row]) continue;
    input.masked[row] = wanted;
    input.n_masked += wanted ? 1 : -1;
    if (event_sink_)
      event_sink_({.onset_s = sections_[0]->time_s,
                   .value = static_cast<double>(input.index),
                   .label = wanted ? mask_label_ : unmask_label_,
                   .row = static_cast<std::int32_t>(row)});
  }
}

namespace {
template <class T>
void mask_rows(FrameSpan<T> frames, const std::vector<std::uint8_t>& masked) noexcept {
  for (Index k = 0; k < frames.frames; ++k)
    for (std::size_t row = 0; row < masked.size(); ++row)
      if (masked[row]) frames.frame(k)[row] = std::numeric_limits<T>::quiet_NaN();
}
}  // namespace

void LiveRunner::give(Input& input, ConstFrames x, std::span<const Event> events, LiveStep step) noexcept {
  Section& first = *sections_[0];
  first.time_s = input.format.time_of(step.first_frame);
  apply_masks(input);
  if (posted_.front() || told_.front()) {
    step_events_.assign(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                             events.size(), step_events_.capacity() - 128)));
    lost_events_.add(static_cast<std::int64_t>(events.size() - step_events_.size()));
    for (auto* ring : {&told_, &posted_})
      for (const Event* e = ring->front(); e && step_events_.size() < step_events_.capacity(); e = ring->front()) {
        step_events_.push_back(*e);
        ring->pop();
      }
    events = step_events_;
  }
  step.events = events;
  if (step_sink_) step_sink_(step);
  if (input.n_masked > 0 && step.packet >= 0) {
    const MutableFrames room(input.masked_frames.data(), x.scalar, x.rows, x.frames, x.rows);
    copy_frames(x, room);
    if (x.scalar == Scalar::f32) mask_rows(room.as<float>(), input.masked);
    else mask_rows(room.as<double>(), input.masked);
    x = room;
  }
  Block block;
  block.x = x;
  block.first_frame = step.first_frame;
  block.events = events;
  first.graph->push(input.index, block);
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
  for (auto& s : sections_)
    if (s->queue) s->queue->wait_for_room();
  for (auto& input : inputs_) input->sequencer.release(*input);
  sections_[0]->graph->flush();
  for (auto& feed : sections_[0]->feeds) feed.to->queue->close();
  for (auto& s : sections_)
    if (s->thread.joinable()) s->thread.join();
  tell_swaps();
  // no block comes any more that could bring them to the graph
  for (const Event* e = told_.front(); e; e = told_.front()) {
    if (event_sink_) event_sink_(*e);
    told_.pop();
  }
  finished_ = true;
}

std::int64_t LiveRunner::swap(const std::string& node, std::shared_ptr<const Model> model) {
  return swap({{node, std::move(model)}});
}

std::int64_t LiveRunner::swap(const std::vector<NewModel>& models,
                              const std::function<void(std::int64_t, const NewModel&)>& announce) {
  std::lock_guard lock(swap_mutex_);
  std::vector<Graph::Swap> all;
  Section* section = nullptr;
  const std::int64_t first = swap_number_ + 1;
  for (auto& m : models) {
    const Place at = place_of(m.node);
    const auto spec = std::find_if(nodes_.begin(), nodes_.end(), [&](auto& n) { return n.name == m.node; });
    if (spec == nodes_.end() || !registry_.at(spec->use, place(*spec)).trained)
      throw ConfigError("swap", "\"" + m.node + "\"", "a node with a model");
    if (section && section != at.section)
      throw ConfigError("swap", "\"" + m.node + "\"", "nodes of one thread: swap those behind a queue by themselves");
    section = at.section;
    all.push_back({at.index, registry_.at(spec->use, place(*spec)).make(spec->params, m.model.get(), place(*spec)),
                   first + static_cast<std::int64_t>(all.size())});
  }
  if (all.empty()) return 0;
  if (announce)
    for (std::size_t i = 0; i < models.size(); ++i) announce(all[i].tag, models[i]);
  swap_number_ += static_cast<std::int64_t>(all.size());
  section->graph->swap(std::move(all));
  return first;
}

LiveCounts LiveRunner::counts() const {
  LiveCounts counts;
  for (auto& input : inputs_) {
    counts.inputs.push_back(input->sequencer.counts());
    counts += counts.inputs.back();
  }
  counts.refused_packets += refused_packets_.value();
  counts.lost_events += lost_events_.value();
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
