#include "core/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/join.h"

namespace percept {

namespace detail {
/// Events that wait until their edge's clock passes their onset, in order of arrival.
struct PendingEvents {
  std::vector<Event> list;
  PendingEvents() { list.reserve(4096); }
  void add(const Event& e) { list.push_back(e); }
  void deliver(double end_s, std::vector<Event>& to) {
    std::size_t kept = 0;
    for (auto& e : list)
      if (e.onset_s < end_s) to.push_back(e);
      else list[kept++] = e;
    list.resize(kept);
  }
};

}  // namespace detail

namespace {
MutableFrames room_of(EdgeBuffer& e, const StreamFormat& f) {
  return {e.bytes.data(), f.scalar, f.size(), f.max_frames, f.size()};
}
}  // namespace

struct Graph::Node {
  NodeSpec spec;
  const StageInfo* info = nullptr;
  std::unique_ptr<Stage> stage;  ///< none for an input
  Context context;
  Traits traits;
  StreamFormat in, out;
  // where the frames come from
  struct From {
    int edge = 0;
    Index offset = 0, rows = 0;  ///< rows of one part, or of the whole frame
    bool whole = true;
  };
  std::vector<From> from;
  std::unique_ptr<Join> join;
  std::vector<std::byte> joined;
  std::vector<std::int64_t> joined_keys;
  std::int64_t next_joined = 0;
  detail::PendingEvents join_events;
  std::vector<Event> joined_events;
  // starting anew at events
  bool resets = false;
  Label reset;
  bool reset_next = false;  ///< before the next frame
  Counter *reset_count = nullptr, *late_count = nullptr;
  std::vector<int> carrier;  ///< for each origin of an event (0: the recording): the input that brings it to the join
  // what it gives
  std::int64_t next_frame = 0;
  detail::PendingEvents pending;
  std::vector<Event> emitted;
  std::atomic<std::int64_t> lost_events{0};
  SinkFn sink;
  // per-frame stages run on several blocks at once, each worker with an instance of its own
  bool pooled = false;
  std::mutex pool_mutex;
  std::vector<std::unique_ptr<Stage>> pool;
  // swap
  struct Fresh {
    std::unique_ptr<Stage> stage;
    std::int64_t tag = 0;
    std::unique_ptr<Fresh> older{};  ///< retired before this one
  };
  std::atomic<Fresh*> fresh{nullptr};
  std::atomic<Fresh*> retired{
      nullptr};  ///< freed by the thread that asks for the next swap, never by the one that runs
  std::int64_t tag = 0;
  std::vector<std::byte> swap_room;
  std::uint64_t state_signature = 0;

  ~Node() {
    delete fresh.load();
    delete retired.load();
  }
};

struct Graph::Impl {
  const Registry* registry = nullptr;
  std::vector<std::string> names;
  std::vector<std::unique_ptr<Node>> nodes;  ///< inputs first, then in the order they run
  std::size_t inputs = 0;
  Scalar precision = Scalar::f32;
  Context context;
  Slot slot;  ///< of the serial runner
  std::function<void(const Slot&)> step_sink;
  std::function<void(int, std::int64_t)> time_sink;
  std::atomic<std::int64_t> swaps{0};
  /// Stages that are put in between the same two blocks.
  struct SwapSet {
    std::vector<std::pair<int, std::unique_ptr<Node::Fresh>>> stages;
    std::unique_ptr<SwapSet> older{};  ///< retired before this one
  };
  std::mutex swap_mutex;  ///< of those who ask for swaps
  std::atomic<SwapSet*> waiting{nullptr}, spent{nullptr};
  std::vector<double> latency_s;
  std::vector<Index> memory;

  ~Impl() {
    delete waiting.load();
    delete spent.load();
  }
};

namespace {
/// "node", "input" or "node.part" -> (name, part)
std::pair<std::string, std::string> split_reference(const std::string& ref, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), ref) != known.end()) return {ref, ""};
  const auto dot = ref.rfind('.');
  if (dot == std::string::npos) return {ref, ""};
  return {ref.substr(0, dot), ref.substr(dot + 1)};
}

/// Messages of prepare() start with the node's name; the reader also wants the file.
[[noreturn]] void rethrow_with_place(const ConfigError& e, const NodeSpec& spec) {
  std::string key = e.key();
  if (!spec.where.empty() && key.rfind(spec.name, 0) == 0) key = spec.where + key.substr(spec.name.size());
  throw ConfigError(key, e.value(), e.expected());
}

/// What has no frame at hand when an event comes, or nothing to forget, cannot start anew.
void require_resettable(const NodeSpec& spec, const StreamFormat& in, const StreamFormat& out, const Traits& traits) {
  std::string why;
  if (in.axis == Axis::item || out.axis == Axis::item) why = "works on items, which have no clock";
  else if (!traits.causal) why = "looks ahead";
  else if (traits.latency_s > 0)
    why = fmt::format("holds frames back for {:g} s, which would be lost", traits.latency_s);
  else if (in.rate_hz != out.rate_hz) why = "changes the rate";
  else if (traits.per_frame) why = "remembers nothing";
  if (!why.empty())
    throw ConfigError((spec.where.empty() ? spec.name : spec.where) + ".reset", "\"" + spec.reset + "\"",
                      fmt::format("no reset, since '{}' {}", spec.use, why));
}
}  // namespace

Graph::Graph(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> specs, Scalar precision,
             Index max_frames, Context context)
    : impl_(std::make_unique<Impl>()) {
  auto& g = *impl_;
  g.registry = &registry;
  g.precision = precision;
  g.context = context;
  g.inputs = inputs.size();
  if (max_frames < 1) throw ConfigError("run.block", fmt::format("{}", max_frames), "at least one frame");

  std::vector<std::string> known;
  for (auto& i : inputs) known.push_back(i.name);
  for (auto& s : specs) {
    if (std::find(known.begin(), known.end(), s.name) != known.end())
      throw ConfigError(s.where.empty() ? s.name : s.where, "",
                        fmt::format("a name of its own: there are two nodes called '{}' (name = \"...\")", s.name));
    known.push_back(s.name);
  }
  for (auto& i : inputs) {
    auto n = std::make_unique<Node>();
    n->spec.name = i.name;
    n->out = i.format;
    n->out.scalar = precision;
    n->out.max_frames = max_frames;
    if (n->out.size() <= 0) throw ConfigError(i.name, "", "an input with at least one row");
    if (n->out.axis == Axis::time && !(n->out.rate_hz > 0))
      throw ConfigError(i.name + ".rate_hz", fmt::format("{} Hz", n->out.rate_hz), "a rate above zero");
    g.names.push_back(i.name);
    g.nodes.push_back(std::move(n));
    g.latency_s.push_back(0);
    g.memory.push_back(0);
  }
  // topological order: repeatedly take the first node whose sources are all there
  std::vector<bool> done(specs.size(), false);
  for (std::size_t placed = 0; placed < specs.size();) {
    bool moved = false;
    for (std::size_t s = 0; s < specs.size(); ++s) {
      if (done[s]) continue;
      auto& spec = specs[s];
      if (spec.from.empty()) {
        if (s > 0) spec.from = {specs[s - 1].name};
        else if (g.inputs == 1) spec.from = {g.names[0]};
        else
          throw ConfigError(spec.where.empty() ? spec.name : spec.where, "",
                            "from = \"...\", since there is more than one input");
      }
      const bool ready = std::all_of(spec.from.begin(), spec.from.end(), [&](auto& ref) {
        const auto name = split_reference(ref, known).first;
        if (std::find(known.begin(), known.end(), name) == known.end())
          throw ConfigError((spec.where.empty() ? spec.name : spec.where) + ".from", "\"" + ref + "\"",
                            fmt::format("a node or an input: {}{}", fmt::join(known, ", "), did_you_mean(name, known)));
        return index_of(name) >= 0;
      });
      if (!ready) continue;

      auto n = std::make_unique<Node>();
      n->spec = spec;
      n->context = context;
      n->context.node = spec.name;
      n->info = &registry.at(spec.use, (spec.where.empty() ? spec.name : spec.where) + ".use");
      const int index = static_cast<int>(g.nodes.size());
      std::vector<StreamFormat> formats;
      double latency = 0;
      Index memory = 0;
      for (auto& ref : spec.from) {
        const auto [name, part] = split_reference(ref, known);
        Node::From f;
        f.edge = index_of(name);
        StreamFormat format = g.nodes[static_cast<std::size_t>(f.edge)]->out;
        f.rows = format.size();
        if (!part.empty()) {
          const Part* p = format.find_part(part);
          std::vector<std::string> parts;
          for (auto& q : format.parts) parts.push_back(q.name);
          if (!p)
            throw ConfigError(
                (spec.where.empty() ? spec.name : spec.where) + ".from", "\"" + ref + "\"",
                fmt::format("a part of '{}': {}{}", name, fmt::join(parts, ", "), did_you_mean(part, parts)));
          f.offset = format.part_offset(part);
          f.rows = p->size();
          f.whole = false;
          format.parts = {Part(*p)};
        }
        formats.push_back(std::move(format));
        n->from.push_back(f);
        latency = std::max(latency, g.latency_s[static_cast<std::size_t>(f.edge)]);
        const Index m = g.memory[static_cast<std::size_t>(f.edge)];
        memory = (m == Traits::kAllFrames || memory == Traits::kAllFrames) ? Traits::kAllFrames
                 : (m < 0 || memory < 0)                                   ? Traits::kDecaying
                                                                           : std::max(m, memory);
      }
      if (spec.from.size() > 1) {
        n->join = std::make_unique<Join>();
        n->in =
            n->join->prepare(formats, spec.from, spec.align == "nearest", spec.where.empty() ? spec.name : spec.where);
        n->joined.resize(static_cast<std::size_t>(n->in.size() * n->in.max_frames) * bytes_of(precision));
        n->joined_keys.resize(static_cast<std::size_t>(n->in.max_frames));
        n->joined_events.reserve(256);
      } else {
        n->in = formats[0];
      }
      try {
        n->stage = n->info->make(spec.params, spec.model.get(), spec.where.empty() ? spec.name : spec.where);
        n->out = n->stage->prepare(n->in, n->context);
      } catch (const ConfigError& e) {
        rethrow_with_place(e, spec);
      }
      n->out.scalar = precision;
      n->traits = n->stage->traits();
      if (!spec.reset.empty()) {
        require_resettable(spec, n->in, n->out, n->traits);
        n->resets = true;
        n->reset = Label::of(spec.reset);
        n->reset_count = &n->context.counter("resets");
        n->late_count = &n->context.counter("late_resets");
      }
      n->emitted.resize(static_cast<std::size_t>(64 + n->in.max_frames));
      n->swap_room.resize(state_bytes(*n->stage));
      n->state_signature = state_signature(*n->stage);
      latency += n->traits.latency_s;
      if (n->traits.memory_frames == Traits::kAllFrames) memory = Traits::kAllFrames;
      else if (memory != Traits::kAllFrames &&
               (n->traits.memory_frames == Traits::kDecaying || memory == Traits::kDecaying))
        memory = Traits::kDecaying;
      else if (memory >= 0 && n->traits.memory_frames > 0) {
        const double input_rate = g.inputs ? g.nodes[0]->out.rate_hz : 0;
        const double scale = n->in.rate_hz > 0 && input_rate > 0 ? input_rate / n->in.rate_hz : 1;
        memory += static_cast<Index>(std::ceil(static_cast<double>(n->traits.memory_frames) * scale - 1e-9));
      }
      g.latency_s.push_back(latency);
      g.memory.push_back(memory);
      // a join hears of an event from the first of its inputs that descends from where the event was made
      if (n->join) {
        n->carrier.assign(static_cast<std::size_t>(index), -1);
        for (std::size_t i = n->from.size(); i-- > 0;) {
          std::vector<int> todo{n->from[i].edge};
          while (!todo.empty()) {
            const int e = todo.back();
            todo.pop_back();
            n->carrier[static_cast<std::size_t>(e) < g.inputs ? 0 : static_cast<std::size_t>(e)] = static_cast<int>(i);
            for (auto& f : g.nodes[static_cast<std::size_t>(e)]->from) todo.push_back(f.edge);
          }
        }
      }
      g.names.push_back(spec.name);
      g.nodes.push_back(std::move(n));
      done[s] = true;
      moved = true;
      ++placed;
      break;
    }
    if (!moved) {
      std::vector<std::string> left;
      for (std::size_t s = 0; s < specs.size(); ++s)
        if (!done[s]) left.push_back(specs[s].name);
      throw ConfigError("stage.from", "",
                        fmt::format("a graph without loops, but these wait for each other: {}", fmt::join(left, ", ")));
    }
  }
  g.slot = make_slot();
}

Graph::~Graph() = default;

std::size_t Graph::input_count() const { return impl_->inputs; }
std::size_t Graph::node_count() const { return impl_->nodes.size() - impl_->inputs; }
const std::vector<std::string>& Graph::names() const { return impl_->names; }
int Graph::index_of(const std::string& name) const {
  const auto& n = impl_->names;
  const auto at = std::find(n.begin(), n.end(), name);
  return at == n.end() ? -1 : static_cast<int>(at - n.begin());
}
const StreamFormat& Graph::format(int i) const { return impl_->nodes[static_cast<std::size_t>(i)]->out; }
Traits Graph::traits(int i) const { return impl_->nodes[static_cast<std::size_t>(i)]->traits; }
Stage& Graph::stage(int i) { return *impl_->nodes[static_cast<std::size_t>(i)]->stage; }
double Graph::latency_s(int i) const { return impl_->latency_s[static_cast<std::size_t>(i)]; }
Index Graph::memory_frames(int i) const { return impl_->memory[static_cast<std::size_t>(i)]; }
void Graph::on_output(int i, SinkFn sink) { impl_->nodes[static_cast<std::size_t>(i)]->sink = std::move(sink); }
void Graph::on_step(std::function<void(const Slot&)> sink) { impl_->step_sink = std::move(sink); }
void Graph::on_time(std::function<void(int, std::int64_t)> sink) { impl_->time_sink = std::move(sink); }
bool Graph::any_order(int i) const {
  auto& n = *impl_->nodes[static_cast<std::size_t>(i)];
  return n.stage && n.traits.per_frame && !n.join;
}

Slot Graph::make_slot() const {
  Slot s;
  s.edges.resize(impl_->nodes.size());
  for (std::size_t i = 0; i < impl_->nodes.size(); ++i) {
    auto& f = impl_->nodes[i]->out;
    s.edges[i].bytes.resize(static_cast<std::size_t>(f.size() * f.max_frames) * bytes_of(f.scalar));
    if (f.axis == Axis::item) s.edges[i].keys.resize(static_cast<std::size_t>(f.max_frames));
    s.edges[i].events.reserve(256);
  }
  return s;
}

void Graph::clear(Slot& slot) const noexcept {
  for (auto& e : slot.edges) {
    e.n_frames = 0;
    e.events.clear();
    e.outside.data = nullptr;
  }
}

MutableFrames Graph::input_room(Slot& slot, int input) const noexcept {
  return room_of(slot.edges[static_cast<std::size_t>(input)], impl_->nodes[static_cast<std::size_t>(input)]->out);
}

void Graph::load(Slot& slot, int input, const Block& b) noexcept {
  auto& n = *impl_->nodes[static_cast<std::size_t>(input)];
  auto& e = slot.edges[static_cast<std::size_t>(input)];
  e.n_frames = b.x.frames;
  e.first_frame = b.first_frame;
  e.missing = b.missing;
  if (b.x.scalar == n.out.scalar) {
    e.outside = b.x;
  } else {
    e.outside.data = nullptr;
    copy_frames(b.x, room_of(e, n.out).slice(0, b.x.frames));
  }
  if (n.out.axis == Axis::item) {
    std::copy(b.keys.begin(), b.keys.end(), e.keys.begin());
    return;
  }
  for (Event event : b.events) {
    event.origin = 0;  // the recording's events are the same on every input
    n.pending.add(event);
  }
  n.next_frame = b.first_frame + b.x.frames;
  // an empty block may bring a late marker: it waits for the next frame, since nothing runs without one
  if (b.x.frames) n.pending.deliver(n.out.time_of(n.next_frame), e.events);
}

Block Graph::view(int index, const Slot& slot) const noexcept {
  auto& e = slot.edges[static_cast<std::size_t>(index)];
  auto& f = impl_->nodes[static_cast<std::size_t>(index)]->out;
  Block b;
  b.x = e.outside.data ? e.outside : ConstFrames(e.bytes.data(), f.scalar, f.size(), e.n_frames, f.size());
  b.first_frame = e.first_frame;
  b.missing = e.missing;
  if (f.axis == Axis::item) b.keys = {e.keys.data(), static_cast<std::size_t>(e.n_frames)};
  b.events = e.events;
  return b;
}

Index Graph::process_anew(Node& n, const Block& in, Output& out) noexcept {
  const Index frames = in.x.frames;
  // frames of this block before which an event lies; one after all of them is about the next block's first
  const auto place = [&](const Event& e) {
    const double ahead = (e.onset_s - n.in.time_of(in.first_frame)) * n.in.rate_hz;  // of any size
    return ahead < -1 ? -1 : std::min<std::int64_t>(n.in.frame_from(e.onset_s) - in.first_frame, frames);
  };
  bool anew = std::exchange(n.reset_next, false);
  for (auto& e : in.events)
    if (e.label == n.reset) {
      const auto at = place(e);
      if (at <= 0) anew = true;
      if (at < 0 && in.first_frame > 0) n.late_count->add();
      if (at == frames) n.reset_next = true;
    }
  Index done = 0, given = 0;
  std::size_t told = 0;  // events
  while (done < frames) {
    if (anew) {
      n.stage->reset();
      n.reset_count->add();
    }
    Index until = frames;
    for (auto& e : in.events)
      if (const auto at = place(e); e.label == n.reset && at > done) until = std::min<Index>(until, at);
    Block piece = in;
    piece.x = in.x.slice(done, until - done);
    piece.first_frame = in.first_frame + done;
    std::size_t end = in.events.size();
    if (until < frames)
      for (end = told; end < in.events.size() && in.events[end].onset_s < n.in.time_of(in.first_frame + until);) ++end;
    piece.events = in.events.subspan(told, end - told);
    told = end;
    Output room = out;
    room.y = out.y.slice(given, out.y.frames - given);
    room.events = out.events + out.n_events;
    room.event_room = out.event_room - out.n_events;
    room.n_events = 0;
    given += n.stage->process(piece, room);
    out.n_events += room.n_events;
    out.lost_events = room.lost_events;
    done = until;
    anew = true;
  }
  return given;
}

bool Graph::run_node(int index, Slot& slot) noexcept {
  auto& g = *impl_;
  auto& n = *g.nodes[static_cast<std::size_t>(index)];
  auto& edge = slot.edges[static_cast<std::size_t>(index)];
  Block in;
  if (n.join) {
    for (std::size_t i = 0; i < n.from.size(); ++i) {
      const auto b = view(n.from[i].edge, slot);
      if (b.x.frames) n.join->take(i, n.from[i].whole ? b.x : b.x.part(n.from[i].offset, n.from[i].rows), b.keys);
      if (n.in.axis == Axis::time)
        for (auto& e : b.events)
          if (n.carrier[static_cast<std::size_t>(e.origin)] == static_cast<int>(i)) n.join_events.add(e);
    }
    const MutableFrames room(n.joined.data(), n.in.scalar, n.in.size(), n.in.max_frames, n.in.size());
    const Index frames = n.join->give(room, n.joined_keys.data());
    in.x = ConstFrames(room).slice(0, frames);
    in.first_frame = n.next_joined;
    n.next_joined += frames;
    n.joined_events.clear();
    if (n.in.axis == Axis::item) in.keys = {n.joined_keys.data(), static_cast<std::size_t>(frames)};
    else if (frames) n.join_events.deliver(n.in.time_of(n.next_joined), n.joined_events);
    in.events = n.joined_events;
  } else {
    in = view(n.from[0].edge, slot);
    if (!n.from[0].whole) in.x = in.x.part(n.from[0].offset, n.from[0].rows);
  }
  if (in.x.frames == 0) return false;  // nothing came this way in this step

  if (Node::Fresh* fresh = n.fresh.exchange(nullptr, std::memory_order_acq_rel)) {
    copy_state(*n.stage, *fresh->stage, n.swap_room);
    n.stage.swap(fresh->stage);
    n.tag = fresh->tag;
    fresh->older.reset(n.retired.exchange(nullptr, std::memory_order_acq_rel));
    n.retired.store(fresh, std::memory_order_release);
    g.swaps.fetch_add(1, std::memory_order_relaxed);
  }

  Output out;
  out.y = room_of(edge, n.out);
  if (n.out.axis == Axis::item) out.keys = edge.keys.data();

  edge.missing = in.missing && any_order(index) && n.out.axis == Axis::time;
  if (edge.missing) {
    fill_missing(out.y.slice(0, in.x.frames));
    edge.n_frames = in.x.frames;
    edge.first_frame = in.first_frame;
    edge.events.insert(edge.events.end(), in.events.begin(), in.events.end());
    return true;
  }
  if (n.traits.per_frame && !n.join) {
    std::unique_ptr<Stage> worker;
    if (n.pooled) {
      std::lock_guard lock(n.pool_mutex);
      worker = std::move(n.pool.back());
      n.pool.pop_back();
    }
    Stage& stage = worker ? *worker : *n.stage;
    edge.n_frames = stage.process(in, out);
    edge.first_frame = in.first_frame;
    if (out.lost_events) n.lost_events.fetch_add(out.lost_events, std::memory_order_relaxed);  // it has no room for any
    if (n.out.axis == Axis::time) edge.events.insert(edge.events.end(), in.events.begin(), in.events.end());
    if (worker) {
      std::lock_guard lock(n.pool_mutex);
      n.pool.push_back(std::move(worker));
    }
    return true;
  }

  out.events = n.emitted.data();
  out.event_room = static_cast<Index>(n.emitted.size());
  edge.n_frames = n.resets ? process_anew(n, in, out) : n.stage->process(in, out);
  edge.first_frame = n.next_frame;
  n.next_frame += edge.n_frames;
  if (out.lost_events) n.lost_events.fetch_add(out.lost_events, std::memory_order_relaxed);
  if (n.out.axis == Axis::time && n.in.axis == Axis::time) {
    for (auto& e : in.events) n.pending.add(e);
    for (Index k = 0; k < out.n_events; ++k) {
      n.emitted[static_cast<std::size_t>(k)].origin = index;
      n.pending.add(n.emitted[static_cast<std::size_t>(k)]);
    }
    if (edge.n_frames) n.pending.deliver(n.out.time_of(n.next_frame), edge.events);
  }
  return true;
}

void Graph::prepare_workers(int count) {
  for (int i = static_cast<int>(impl_->inputs); i < static_cast<int>(impl_->nodes.size()); ++i) {
    auto& n = *impl_->nodes[static_cast<std::size_t>(i)];
    if (!any_order(i)) continue;
    n.pool.clear();
    n.pooled = true;
    for (int k = 0; k < count; ++k) {
      n.pool.push_back(n.info->make(n.spec.params, n.spec.model.get(), n.spec.where));
      n.pool.back()->prepare(n.in, n.context);
    }
  }
}

bool Graph::flush_node(int index, Slot& slot) noexcept {
  auto& n = *impl_->nodes[static_cast<std::size_t>(index)];
  if (!n.stage) return false;
  auto& edge = slot.edges[static_cast<std::size_t>(index)];
  clear(slot);
  if (n.join) {  // what the join still holds goes first
    run_node(index, slot);
    if (edge.n_frames) return true;
  }
  Output out;
  out.y = room_of(edge, n.out);
  if (n.out.axis == Axis::item) out.keys = edge.keys.data();
  out.events = n.emitted.data();
  out.event_room = static_cast<Index>(n.emitted.size());
  edge.n_frames = n.stage->flush(out);
  edge.missing = false;
  edge.first_frame = n.next_frame;
  n.next_frame += edge.n_frames;
  if (n.out.axis == Axis::time && edge.n_frames) {
    for (Index k = 0; k < out.n_events; ++k) {
      n.emitted[static_cast<std::size_t>(k)].origin = index;
      n.pending.add(n.emitted[static_cast<std::size_t>(k)]);
    }
    n.pending.deliver(n.out.time_of(n.next_frame), edge.events);
  }
  return edge.n_frames > 0;
}

void Graph::deliver(int index, const Slot& slot) noexcept {
  auto& n = *impl_->nodes[static_cast<std::size_t>(index)];
  auto& e = slot.edges[static_cast<std::size_t>(index)];
  if (n.sink && e.n_frames) n.sink(view(index, slot));
}

void Graph::run_all() noexcept {
  const auto now = [] {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  if (Impl::SwapSet* set = impl_->waiting.exchange(nullptr, std::memory_order_acq_rel)) {
    // one that a newer one overtook goes back with the set, and is freed with it
    for (auto& [index, fresh] : set->stages)
      fresh.reset(
          impl_->nodes[static_cast<std::size_t>(index)]->fresh.exchange(fresh.release(), std::memory_order_acq_rel));
    set->older.reset(impl_->spent.exchange(nullptr, std::memory_order_acq_rel));
    impl_->spent.store(set, std::memory_order_release);
  }
  for (int i = 0; i < static_cast<int>(impl_->nodes.size()); ++i) {
    if (i >= static_cast<int>(impl_->inputs)) {
      const std::int64_t start = impl_->time_sink ? now() : 0;
      if (run_node(i, impl_->slot) && impl_->time_sink) impl_->time_sink(i, now() - start);
    }
    deliver(i, impl_->slot);
  }
  if (impl_->step_sink) impl_->step_sink(impl_->slot);
}

void Graph::push(int input, const Block& block) noexcept {
  clear(impl_->slot);
  load(impl_->slot, input, block);
  run_all();
}

void Graph::push(std::span<const Block> blocks) noexcept {
  clear(impl_->slot);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (blocks[i].x.frames || !blocks[i].events.empty()) load(impl_->slot, static_cast<int>(i), blocks[i]);
  run_all();
}

void Graph::flush() noexcept {
  const int n = static_cast<int>(impl_->nodes.size());
  for (int i = static_cast<int>(impl_->inputs); i < n; ++i)
    while (flush_node(i, impl_->slot)) {
      deliver(i, impl_->slot);
      for (int j = i + 1; j < n; ++j) {
        run_node(j, impl_->slot);
        deliver(j, impl_->slot);
      }
      if (impl_->step_sink) impl_->step_sink(impl_->slot);
    }
}

void Graph::reset() noexcept {
  for (auto& n : impl_->nodes) {
    if (n->stage) n->stage->reset();
    if (n->join) n->join->reset();
    n->next_frame = n->next_joined = 0;
    n->reset_next = false;
    n->pending.list.clear();
    n->join_events.list.clear();
  }
}

void Graph::swap(int index, std::unique_ptr<Stage> fresh, std::int64_t tag) {
  std::vector<Swap> one;
  one.push_back({index, std::move(fresh), tag});
  swap(std::move(one));
}

void Graph::swap(std::vector<Swap> all) {
  auto set = std::make_unique<Impl::SwapSet>();
  for (auto& s : all) {
    auto& n = *impl_->nodes[static_cast<std::size_t>(s.index)];
    if (!n.info) throw ConfigError(n.spec.name, "", "a node that can be swapped, found an input");
    Context context = n.context;
    auto out = s.stage->prepare(n.in, context);
    out.scalar = impl_->precision;
    if (!(out == n.out))
      throw ConfigError(n.spec.name, "",
                        fmt::format("a stage that gives {} as before, found {}", n.out.describe(), out.describe()));
    if (state_signature(*s.stage) != n.state_signature)
      throw ConfigError(n.spec.name, "", "a stage whose state has the same arrays as before, found another");
    set->stages.emplace_back(s.index,
                             std::make_unique<Node::Fresh>(Node::Fresh{.stage = std::move(s.stage), .tag = s.tag}));
  }
  std::lock_guard lock(impl_->swap_mutex);
  delete impl_->spent.exchange(nullptr, std::memory_order_acq_rel);
  for (auto& s : set->stages)
    delete impl_->nodes[static_cast<std::size_t>(s.first)]->retired.exchange(nullptr, std::memory_order_acq_rel);
  // what still waits and is not overtaken goes in together with these
  if (const std::unique_ptr<Impl::SwapSet> old{impl_->waiting.exchange(nullptr, std::memory_order_acq_rel)})
    for (auto& o : old->stages)
      if (std::none_of(set->stages.begin(), set->stages.end(), [&](auto& s) { return s.first == o.first; }))
        set->stages.push_back(std::move(o));
  delete impl_->waiting.exchange(set.release(), std::memory_order_acq_rel);
}

std::int64_t Graph::swap_tag(int index) const noexcept { return impl_->nodes[static_cast<std::size_t>(index)]->tag; }

std::int64_t Graph::swaps_done() const noexcept { return impl_->swaps.load(); }

std::vector<std::byte> Graph::save_state() {
  std::vector<std::byte> all;
  auto put = [&](const void* p, std::size_t n) {
    auto* b = static_cast<const std::byte*>(p);
    all.insert(all.end(), b, b + n);
  };
  auto put_events = [&](const std::vector<Event>& list) {
    const std::uint64_t n = list.size();
    put(&n, sizeof n);
    put(list.data(), n * sizeof(Event));
  };
  for (auto& n : impl_->nodes) {
    put(&n->next_frame, sizeof n->next_frame);
    put(&n->next_joined, sizeof n->next_joined);
    put(&n->reset_next, sizeof n->reset_next);
    put_events(n->pending.list);
    put_events(n->join_events.list);
    if (n->join) n->join->save(all);
    if (n->stage) {
      const auto s = percept::save_state(*n->stage);
      const std::uint64_t size = s.size();
      put(&size, sizeof size);
      put(s.data(), s.size());
    }
  }
  return all;
}

void Graph::restore_state(const std::vector<std::byte>& state) {
  std::span<const std::byte> in(state);
  auto get = [&](void* p, std::size_t n) {
    if (in.size() < n) throw Error("state of a graph is cut short");
    if (n) std::memcpy(p, in.data(), n);
    in = in.subspan(n);
  };
  auto get_events = [&](std::vector<Event>& list) {
    std::uint64_t n = 0;
    get(&n, sizeof n);
    if (n > in.size() / sizeof(Event)) throw Error("state of a graph has an impossible size");
    list.resize(static_cast<std::size_t>(n));
    get(list.data(), list.size() * sizeof(Event));
  };
  for (auto& n : impl_->nodes) {
    get(&n->next_frame, sizeof n->next_frame);
    get(&n->next_joined, sizeof n->next_joined);
    get(&n->reset_next, sizeof n->reset_next);
    get_events(n->pending.list);
    get_events(n->join_events.list);
    if (n->join) n->join->restore(in);
    if (n->stage) {
      std::uint64_t size = 0;
      get(&size, sizeof size);
      if (size > in.size()) throw Error("state of a graph is cut short");
      percept::restore_state(*n->stage, {in.begin(), in.begin() + static_cast<std::ptrdiff_t>(size)});
      in = in.subspan(static_cast<std::size_t>(size));
    }
  }
  if (!in.empty()) throw Error("state of another graph");
}

std::int64_t Graph::lost_events() const noexcept {
  std::int64_t n = 0;
  for (auto& node : impl_->nodes) n += node->lost_events.load();
  return n;
}
std::int64_t Graph::dropped_items() const noexcept {
  std::int64_t n = 0;
  for (auto& node : impl_->nodes)
    if (node->join) n += node->join->dropped();
  return n;
}

}  // namespace percept
