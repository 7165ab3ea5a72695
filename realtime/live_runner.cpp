#include "realtime/live_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

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
}  // namespace

LiveRunner::LiveRunner(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> nodes,
                       LiveOptions options)
    : registry_(registry), nodes_(std::move(nodes)), options_(options),
      graph_(registry, inputs, nodes_, options.precision, options.block, context_of(options)),
      gap_label_(Label::of("gap")) {
  for (auto& node : nodes_) {
    const Traits traits = graph_.traits(graph_.index_of(node.name));
    const std::string& twin = registry.at(node.use, place(node)).causal_twin;
    if (!traits.causal)
      throw ConfigError(place(node) + ".use", "\"" + node.use + "\"",
                        twin.empty() ? "a causal stage: this one looks ahead"
                                     : fmt::format("a causal stage when live: \"{}\"", twin));
    if (options_.require_real_time && !traits.real_time)
      throw ConfigError(place(node) + ".use", "\"" + node.use + "\"",
                        "a real-time stage: this one may allocate or take unbounded time");
  }
  Index widest = 0;
  for (int i = 0; i < static_cast<int>(graph_.input_count()); ++i) {
    const StreamFormat& f = graph_.format(i);
    if (f.axis != Axis::time)
      throw ConfigError(graph_.names()[static_cast<std::size_t>(i)], f.describe(),
                        "a stream with a clock: items do not come live");
    const double max_gap = std::floor(options_.max_gap_s * f.rate_hz);
    if (!(max_gap >= 0 && max_gap < 1e15))
      throw ConfigError("max_gap_s", fmt::format("{}", options_.max_gap_s), "a time of zero or more [s]");
    clocks_.push_back({options_.first_counter.value_or(0), 0, options_.first_counter.has_value(),
                       static_cast<std::int64_t>(max_gap)});
    widest = std::max(widest, f.size());
  }
  const auto values = static_cast<std::size_t>(widest * options_.block);
  missing_.resize(values * bytes_of(options_.precision));
  if (options_.precision == Scalar::f32)
    std::fill_n(reinterpret_cast<float*>(missing_.data()), values, std::numeric_limits<float>::quiet_NaN());
  else std::fill_n(reinterpret_cast<double*>(missing_.data()), values, std::numeric_limits<double>::quiet_NaN());
  for (int i = 0; i < static_cast<int>(graph_.names().size()); ++i) {
    const bool is_input = i < static_cast<int>(graph_.input_count());
    stages_.push_back(is_input ? nullptr : &graph_.stage(i));
    swap_labels_.push_back(is_input ? Label() : Label::of("swap " + graph_.names()[static_cast<std::size_t>(i)]));
  }
}

int LiveRunner::index_of(const std::string& node) const {
  const int i = graph_.index_of(node);
  if (i < 0)
    throw ConfigError("live", "\"" + node + "\"",
                      fmt::format("a node: {}{}", fmt::join(graph_.names(), ", "), did_you_mean(node, graph_.names())));
  return i;
}

const StreamFormat& LiveRunner::format(const std::string& node) const { return graph_.format(index_of(node)); }
void LiveRunner::on_output(const std::string& node, SinkFn sink) { graph_.on_output(index_of(node), std::move(sink)); }

void LiveRunner::push(const Packet& packet, int input) noexcept {
  const std::int64_t arrived = packet.received_ns ? packet.received_ns : now_ns();
  const auto drop = [&](Counter& counter) {
    counter.add();
    lost_events_.add(static_cast<std::int64_t>(packet.events.size()));
  };
  if (input < 0 || input >= static_cast<int>(clocks_.size())) return drop(refused_packets_);
  const StreamFormat& format = graph_.format(input);
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
  Clock& clock = clocks_[static_cast<std::size_t>(input)];
  Block block;
  block.x = x;
  block.first_frame = clock.next;
  block.events = events;
  clock.next += x.frames;
  graph_.push(input, block);
  if (graph_.swaps_done() != swaps_seen_) {
    swaps_seen_ = graph_.swaps_done();
    const double onset_s = graph_.format(input).time_of(block.first_frame);
    for (std::size_t i = graph_.input_count(); i < stages_.size(); ++i) {
      const Stage* stage = &graph_.stage(static_cast<int>(i));
      if (stage == stages_[i]) continue;
      stages_[i] = stage;
      if (event_sink_) event_sink_({.onset_s = onset_s, .label = swap_labels_[i]});
    }
  }
}

void LiveRunner::swap(const std::string& node, std::shared_ptr<const Model> model) {
  const int index = index_of(node);
  const auto spec = std::find_if(nodes_.begin(), nodes_.end(), [&](auto& n) { return n.name == node; });
  if (spec == nodes_.end() || !registry_.at(spec->use, place(*spec)).trained)
    throw ConfigError("swap", "\"" + node + "\"", "a node with a model");
  graph_.swap(index, registry_.at(spec->use, place(*spec)).make(spec->params, model.get(), place(*spec)));
}

LiveCounts LiveRunner::counts() const noexcept {
  return {.packets = packets_.value(),
          .frames = frames_.value(),
          .gaps = gaps_.value(),
          .missing_frames = missing_frames_.value(),
          .late_packets = late_packets_.value(),
          .repeated_frames = repeated_frames_.value(),
          .refused_packets = refused_packets_.value(),
          .lost_events = lost_events_.value() + graph_.lost_events(),
          .swaps = graph_.swaps_done()};
}

}  // namespace percept
