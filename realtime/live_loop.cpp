#include "realtime/live_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "realtime/pumped_source.h"

namespace percept {

namespace {
constexpr std::int64_t kWatch = 5'000'000;      ///< how often the watchdog looks without a packet [ns]
constexpr std::int64_t kShow = 9'500'000;       ///< between two frames of an input for a scope [ns]
constexpr std::int64_t kClock = 1'000'000'000;  ///< how often a clock is recorded [ns]
constexpr int kMostAtOnce = 64;                 ///< packets of one source before the watchdog looks again
constexpr Index kPumpRoom = 4096;
}  // namespace

struct LiveLoop::Input {
  int index = 0;
  std::unique_ptr<Source> source;
  StreamFormat format;
  std::unique_ptr<ChannelHealth> health;
  ClockModel clock;
  std::int64_t clock_recorded = 0;  ///< version of its line that the recorder has
  bool ended = false;
  Index bad = 0;                   ///< of its channels
  std::int64_t newest_ns = 0;      ///< of the newest data: corrected where the clock is known
  std::int64_t shown_ns = 0;       ///< when a frame was last kept for a scope
  std::int64_t held_since_ns = 0;  ///< packets wait for an earlier one since then; 0: none does
};

LiveLoop::LiveLoop(Setup setup)
    : setup_(std::move(setup)), runner_(*setup_.runner),
      guard_(runner_.format(setup_.node), setup_.guard, setup_.where + ".guard"), format_(runner_.format(setup_.node)),
      wakeup_(std::make_shared<Wakeup>()), hold_label_(Label::of("hold")), release_label_(Label::of("release")),
      click_label_(Label::of("click")) {
  if (setup_.sources.size() != runner_.input_count())
    throw ConfigError(setup_.where + ".source", fmt::format("{} sources", setup_.sources.size()),
                      fmt::format("one for each of {} inputs", runner_.input_count()));
  if (setup_.sources.size() > static_cast<std::size_t>(LiveState::kMostInputs))
    throw ConfigError(setup_.where + ".source", fmt::format("{} sources", setup_.sources.size()),
                      fmt::format("at most {}", LiveState::kMostInputs));
  if (!runner_.on_push_thread(setup_.node))
    throw ConfigError(setup_.where + ".node", "\"" + setup_.node + "\"",
                      "a node on the real-time thread: this one is behind a queue");
  if (format_.axis != Axis::time)
    throw ConfigError(setup_.where + ".node", "\"" + setup_.node + "\"", "a node that gives frames with a clock");
  for (std::size_t i = 0; i < setup_.sources.size(); ++i) {
    auto input = std::make_unique<Input>();
    input->index = static_cast<int>(i);
    input->format = setup_.sources[i]->format();
    input->health = std::make_unique<ChannelHealth>(input->format, setup_.health);
    channels_ += input->format.size();
    // several are waited for together; one that is in time by itself is asked directly
    if (setup_.sources.size() > 1 || !setup_.sources[i]->real_time())
      input->source = std::make_unique<PumpedSource>(std::move(setup_.sources[i]), kPumpRoom, wakeup_);
    else input->source = std::move(setup_.sources[i]);
    inputs_.push_back(std::move(input));
  }
  runner_.on_output(setup_.node, [this](const Block& b) { decoded(b); });
  if (!setup_.click.empty()) {
    const StreamFormat& click = runner_.format(setup_.click);
    if (setup_.click == setup_.node || click.parts.front().name != "click" || !runner_.on_push_thread(setup_.click))
      throw ConfigError(setup_.where + ".click", "\"" + setup_.click + "\"",
                        "a stage `click` on the real-time thread, beside the decoded one");
    click_rows_ = click.parts.front().size();
    runner_.on_output(setup_.click, [this](const Block& b) { clicked(b); });
  }
  if (!setup_.raster.empty()) runner_.on_output(setup_.raster, [this](const Block& b) { show_raster(b); });
  if (setup_.recorder) {
    runner_.on_step([this](const LiveStep& s) { setup_.recorder->step(0, s); });
    runner_.on_event([this](const Event& e) { setup_.recorder->event(0, e); });
  }
}

LiveLoop::~LiveLoop() { stop(); }

void LiveLoop::stop() noexcept {
  stopped_.store(true, std::memory_order_release);
  for (auto& input : inputs_) input->source->stop();
  wakeup_->notify();
}

bool LiveLoop::mask(int input, Index row, bool out) {
  if (input < 0 || input >= static_cast<int>(inputs_.size()) || row < 0 ||
      row >= inputs_[static_cast<std::size_t>(input)]->format.size())
    return false;
  std::lock_guard lock(command_mutex_);
  return commands_.push({input, row, out});
}

bool LiveLoop::start_task(bool on) noexcept {
  if (setup_.task) setup_.task->task().start(on);
  return setup_.task != nullptr;
}
bool LiveLoop::recalibrate() noexcept {
  if (!setup_.task || !setup_.task->calibration()) return false;
  setup_.task->recalibrate();
  return true;
}

const ChannelHealth& LiveLoop::health(int input) const { return *inputs_.at(static_cast<std::size_t>(input))->health; }

void LiveLoop::run() {
  for (auto& input : inputs_) input->source->start();
  notes_ = enter_real_time(setup_.real_time);
  for (auto& input : inputs_) input->source->raise(setup_.real_time);
  for (auto& outlet : setup_.outlets) outlet->raise(setup_.real_time);
  if (setup_.recorder) setup_.recorder->raise(setup_.real_time);
  running_.store(true, std::memory_order_release);
  const std::int64_t end_ns =
      setup_.duration_s > 0 ? steady_ns() + static_cast<std::int64_t>(setup_.duration_s * 1e9) : 0;
  Packet packet;
  for (bool more = true; more && !stopped_.load(std::memory_order_acquire);) {
    const std::uint32_t seen = wakeup_->now();
    const bool alone = inputs_.size() == 1;
    bool any = false;
    more = false;
    for (auto& input : inputs_) {
      if (input->ended) continue;
      more = true;
      for (int n = 0; n < kMostAtOnce; ++n) {
        const auto got = input->source->poll(packet, alone && n == 0 ? kWatch : 0);
        if (got == Source::Got::ended) input->ended = true;
        if (got != Source::Got::packet) break;
        any = true;
        take(*input, packet);
      }
    }
    const std::int64_t now = steady_ns();
    if (now - last_look_ns_ >= kWatch) look_around(now);
    if (end_ns && now >= end_ns) break;
    if (!any && !alone) wakeup_->wait(seen, kWatch);
  }
  for (auto& input : inputs_) input->source->stop();
  runner_.finish();
  look_around(steady_ns());
  for (auto& outlet : setup_.outlets) outlet->finish();
  running_.store(false, std::memory_order_release);
  finished_.store(true, std::memory_order_release);
}

void LiveLoop::take(Input& input, const Packet& given) noexcept {
  Packet packet = given;
  if (packet.received_ns == 0) packet.received_ns = steady_ns();
  if (packet.clock.local_ns != 0) input.clock.observe(packet.clock);
  const bool stamped = std::isfinite(packet.device_s) && input.clock.known();
  const std::int64_t corrected =
      stamped ? static_cast<std::int64_t>(input.clock.line().to_local(packet.device_s) * 1e9) : 0;
  const std::int64_t number = pushed_++;
  waited_.add(steady_ns() - packet.received_ns);
  // each line before the packets it corrects, so that a correction can be undone
  if (setup_.recorder && input.clock.known() && input.clock.version() != input.clock_recorded) {
    input.clock_recorded = input.clock.version();
    setup_.recorder->clock(0, input.index, input.clock, packet.received_ns);
  }
  if (setup_.recorder) setup_.recorder->packet(0, number, input.index, packet, corrected);
  if (input.health->check(packet.x)) {
    bad_ -= input.bad;
    input.bad = input.health->bad();
    bad_ += input.bad;
    for (Index row = 0; row < input.health->rows(); ++row) runner_.mask(input.index, row, !input.health->usable(row));
  }
  if (watched_.load(std::memory_order_relaxed)) show_signal(input, packet);
  received_ns_ = packet.received_ns;
  corrected_ns_ = corrected;
  // no data are newer than their arrival, whatever a device's clock says
  const std::int64_t newest_before = input.newest_ns;
  input.newest_ns = std::max(newest_before, std::min(stamped ? corrected : packet.received_ns, packet.received_ns));
  update_conditions(steady_ns());
  const Fate fate = runner_.push(packet, input.index);
  const std::int64_t now = steady_ns();
  if (fate != Fate::used) {
    // what repeats itself or cannot be used must not keep the watchdog quiet
    input.newest_ns = newest_before;
    update_conditions(now);
    if (setup_.recorder) setup_.recorder->fate(0, number, fate);
  }
  if (fate == Fate::used && static_cast<double>(now - packet.received_ns) > setup_.loop.deadline_s * 1e9) ++misses_;
  if (runner_.held(input.index) == 0) input.held_since_ns = 0;
  else if (input.held_since_ns == 0) input.held_since_ns = now;
  if (now - last_look_ns_ >= kWatch) look_around(now);
}

void LiveLoop::show_signal(Input& input, const Packet& packet) noexcept {
  if (packet.x.frames < 1 || packet.received_ns - input.shown_ns < kShow) return;
  input.shown_ns = packet.received_ns;
  SignalFrame& frame = shown_;
  frame.input = input.index;
  frame.rows = std::min(packet.x.rows, SignalFrame::kMostRows);
  const ConstFrames last = packet.x.slice(packet.x.frames - 1, 1).part(0, frame.rows);
  copy_frames(last, MutableFrames(frame.x.data(), Scalar::f32, frame.rows, 1, frame.rows));
  signal_.push(frame);  // nobody fetched the last ones: it is left out
}
void LiveLoop::show_raster(const Block& block) noexcept {
  if (!watched_.load(std::memory_order_relaxed)) return;
  for (Index k = 0; k < block.x.frames; ++k) {
    SignalFrame& frame = shown_;
    frame.input = SignalFrame::kRaster;
    frame.rows = std::min(block.x.rows, SignalFrame::kMostRows);
    copy_frames(block.x.slice(k, 1).part(0, frame.rows),
                MutableFrames(frame.x.data(), Scalar::f32, frame.rows, 1, frame.rows));
    signal_.push(frame);
  }
}
bool LiveLoop::next_signal(SignalFrame& frame) noexcept {
  const SignalFrame* next = signal_.front();
  if (!next) return false;
  frame = *next;
  signal_.pop();
  return true;
}

void LiveLoop::decoded(const Block& block) noexcept {
  for (Index k = 0; k < block.x.frames; ++k) {
    const std::int64_t frame = block.first_frame + k;
    ++frames_;
    last_frame_ = frame;
    last_time_s_ = format_.time_of(frame);
    guard_.take(block.x.slice(k, 1));
    const std::int64_t clicks = clicks_;
    send(frame, last_time_s_, received_ns_);
    if (setup_.task) steer(frame, last_time_s_, clicks_ > clicks);
  }
  if (setup_.recorder) setup_.recorder->output(0, 0, block, received_ns_, corrected_ns_, guard_.hold() != Hold::none);
  const std::int64_t from = corrected_ns_ ? corrected_ns_ : received_ns_;
  if (from) age_.add(std::max<std::int64_t>(steady_ns() - from, 0));
}

void LiveLoop::clicked(const Block& block) noexcept {
  const auto count = [this](auto x) {
    for (Index k = 0; k < x.frames; ++k)
      for (Index row = 0; row < click_rows_; ++row) new_clicks_ += x.frame(k)[row] == 1;
  };
  if (block.x.scalar == Scalar::f32) count(block.x.as<float>());
  else count(block.x.as<double>());
}

/// The cursor, its task, and what they tell.
void LiveLoop::steer(std::int64_t frame, double time_s, bool clicked) noexcept {
  const ClosedLoop::Result result = setup_.task->step(frame, time_s, guard_.value(), guard_.hold(), clicked);
  // with the next block the graph hears of them, and with it the recording
  for (auto& event : result.events) runner_.tell(event);
  if (setup_.recorder) {
    Block block;
    const auto rows = static_cast<Index>(result.frame.size());
    block.x = ConstFrames(result.frame.data(), Scalar::f64, rows, 1, rows);
    block.first_frame = frame;
    setup_.recorder->output(0, 1, block, received_ns_, corrected_ns_, guard_.hold() != Hold::none);
  }
  if (result.done) stopped_.store(true, std::memory_order_release);
}

void LiveLoop::send(std::int64_t frame, double time_s, std::int64_t received_ns) noexcept {
  // what is held must not be acted upon: neither are its clicks
  const bool held = guard_.hold() != Hold::none;
  const Index clicks = held ? 0 : new_clicks_;
  (held ? held_clicks_ : clicks_) += std::exchange(new_clicks_, 0);
  if (clicks > 0 && setup_.recorder)
    setup_.recorder->event(0, {.onset_s = time_s, .value = static_cast<double>(clicks), .label = click_label_});
  const SentState state{.frame = frame,
                        .time_s = time_s,
                        .value = guard_.value(),
                        .sd = guard_.sd(),
                        .rows = guard_.rows(),
                        .hold = guard_.hold(),
                        .clicks = clicks,
                        .received_ns = received_ns};
  for (auto& outlet : setup_.outlets) outlet->send(state);
  if (guard_.hold() != told_) {
    told_ = guard_.hold();
    if (setup_.recorder)
      setup_.recorder->event(0, {.onset_s = time_s,
                                 .value = static_cast<double>(told_),
                                 .label = told_ == Hold::none ? release_label_ : hold_label_});
  }
}

double LiveLoop::update_conditions(std::int64_t now) noexcept {
  std::int64_t newest = std::numeric_limits<std::int64_t>::max();
  for (auto& input : inputs_) newest = std::min(newest, input->newest_ns);
  const double age = newest > 0 ? static_cast<double>(now - newest) * 1e-9 : 0;
  guard_.emergency(emergency_.load(std::memory_order_acquire));
  guard_.conditions(age, channels_ ? static_cast<double>(bad_) / static_cast<double>(channels_) : 0);
  return age;
}

/// The watchdog and everything else that is due without a packet.
void LiveLoop::look_around(std::int64_t now) noexcept {
  last_look_ns_ = now;
  while (const Command* c = commands_.front()) {
    Input& input = *inputs_[static_cast<std::size_t>(c->input)];
    input.health->by_hand(c->row, c->out);
    commands_.pop();
  }
  for (auto& input : inputs_) {
    if (input->held_since_ns && static_cast<double>(now - input->held_since_ns) >= setup_.loop.wait_s * 1e9) {
      received_ns_ = corrected_ns_ = 0;
      runner_.release(input->index);
      input->held_since_ns = 0;
    }
  }
  const double age = update_conditions(now);
  // whoever acts on the last state must hear that it does not hold any more
  if (guard_.hold() != told_ && frames_ > 0) send(last_frame_, last_time_s_, 0);
  if (setup_.recorder && now - last_clock_ns_ >= kClock) {
    last_clock_ns_ = now;
    for (auto& input : inputs_)
      if (input->clock.known()) setup_.recorder->clock(0, input->index, input->clock, now);
  }
  LiveState& s = latest_.room();
  s.frames = frames_;
  s.time_s = last_time_s_;
  s.age_s = age;
  s.hold = guard_.hold();
  s.rows = std::min(guard_.rows(), LiveState::kMostRows);
  std::copy_n(guard_.value(), s.rows, s.value.begin());
  std::copy_n(guard_.sd(), s.rows, s.sd.begin());
  s.covariance_01 = s.rows > 1 ? guard_.covariance(0, 1) : std::numeric_limits<double>::quiet_NaN();
  s.deadline_misses = misses_;
  s.limited_frames = guard_.limited();
  s.held_frames = guard_.held_frames();
  s.holds = guard_.holds();
  s.clicks = clicks_;
  s.held_clicks = held_clicks_;
  s.written_ns = now;
  if (setup_.task) s.task = setup_.task->state();
  for (auto& input : inputs_) {
    const ClockModel& c = input->clock;
    auto& to = s.clocks[static_cast<std::size_t>(input->index)];
    to.known = c.known();
    if (to.known) {
      const double device = c.line().to_device(static_cast<double>(now) * 1e-9);
      to = {true,           c.holding(now), static_cast<double>(now) * 1e-9 - device,
            c.line().drift, c.residual_s(), c.uncertainty_s(device),
            c.jumps()};
    }
    s.bad_channels[static_cast<std::size_t>(input->index)] = input->bad;
  }
  latest_.put();
}

LiveState LiveLoop::state() {
  std::lock_guard lock(look_mutex_);
  return latest_.look();
}

namespace {
Value times(const LatencyHistogram& h) {
  return Value::object({{"count", h.count()},
                        {"p50_s", h.quantile_s(0.5)},
                        {"p99_s", h.quantile_s(0.99)},
                        {"p99.9_s", h.quantile_s(0.999)},
                        {"max_s", h.max_s()}});
}
Value fates(const SequenceCounts& c) {
  return Value::object({{"packets", c.packets},
                        {"frames", c.frames},
                        {"gaps", c.gaps},
                        {"missing_frames", c.missing_frames},
                        {"reordered_packets", c.reordered_packets},
                        {"duplicate_packets", c.duplicate_packets},
                        {"late_packets", c.late_packets},
                        {"refused_packets", c.refused_packets},
                        {"repeated_frames", c.repeated_frames},
                        {"restarts", c.restarts},
                        {"lost_events", c.lost_events}});
}
}  // namespace

Value LiveLoop::report() {
  const LiveState s = state();
  const LiveCounts counts = runner_.counts();
  Value r = Value::object({{"finished", finished()}, {"decoded_frames", s.frames}, {"time_s", s.time_s}});
  r["hold"] = s.hold == Hold::none ? Value() : Value(text_of(s.hold));
  r["held_frames"] = s.held_frames;
  r["holds"] = s.holds;
  r["limited_frames"] = s.limited_frames;
  r["deadline_misses"] = s.deadline_misses;
  if (!setup_.click.empty()) {
    r["clicks"] = s.clicks;
    r["held_clicks"] = s.held_clicks;
  }
  r["latency"] = times(runner_.latency());
  r["age"] = times(age_);
  r["waited"] = times(waited_);
  Value nodes = Value::table();
  for (auto& n : runner_.node_times()) nodes[n.node] = times(*n.took);
  if (nodes.size()) r["nodes"] = std::move(nodes);
  Value inputs = Value::table();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Input& input = *inputs_[i];
    Value v = fates(counts.inputs[i]);
    const SourceCounts c = input.source->counts();
    v["device"] = input.source->info().device;
    v["received_packets"] = c.packets;
    v["malformed"] = c.malformed;
    v["foreign"] = c.foreign;
    v["lost_in_system"] = c.lost_in_system;
    v["infinite"] = c.infinite;
    v["reconnects"] = c.reconnects;
    const auto& clock = s.clocks[i];
    if (clock.known)
      v["clock"] = Value::object({{"offset_s", clock.offset_s},
                                  {"drift", clock.drift},
                                  {"residual_s", clock.residual_s},
                                  {"uncertainty_s", clock.uncertainty_s},
                                  {"holding", clock.holding},
                                  {"jumps", clock.jumps}});
    Value bad = Value::table();
    const auto names = input.format.row_names();
    for (Index row = 0; row < input.health->rows(); ++row)
      if (!input.health->usable(row)) bad[names[static_cast<std::size_t>(row)]] = name_of(input.health->state(row));
    v["bad_channels"] = std::move(bad);
    if (const auto trouble = input.source->trouble(); !trouble.empty()) v["trouble"] = trouble;
    inputs[input.source->info().name] = std::move(v);
  }
  r["inputs"] = std::move(inputs);
  if (!counts.queues.empty()) {
    Value queues = Value::table();
    for (auto& q : counts.queues)
      queues[q.node] = Value::object({{"blocks", q.blocks},
                                      {"frames", q.frames},
                                      {"lost_blocks", q.lost_blocks},
                                      {"lost_frames", q.lost_frames},
                                      {"waits", q.waits}});
    r["queues"] = std::move(queues);
  }
  r["swaps"] = counts.swaps;
  Value outlets = Value::array();
  for (auto& o : setup_.outlets) {
    Value v = Value::object({{"device", o->device()}, {"sent", o->sent()}, {"lost", o->lost()}});
    if (const auto trouble = o->trouble(); !trouble.empty()) v["trouble"] = trouble;
    outlets.push_back(std::move(v));
  }
  if (setup_.task) r["task"] = setup_.task->report(finished());
  if (outlets.size()) r["outputs"] = std::move(outlets);
  if (setup_.recorder) r["recorder"] = to_value(setup_.recorder->counts());
  if (running() || s.frames > 0) r["notes"] = notes_;
  return r;
}

}  // namespace percept
