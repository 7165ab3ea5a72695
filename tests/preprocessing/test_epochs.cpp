/// Time to items, and the clock from the recording to the item.
#include <algorithm>
#include <random>

#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Event event_at(double onset_s, std::int64_t id, const char* label = "go") {
  Event e;
  e.onset_s = onset_s;
  e.id = id;
  e.label = Label::of(label);
  return e;
}

/// 100 Hz, one row that holds its frame number.
StageInput ramp(Index frames) {
  StageInput in{.format = time_format(1, 100), .frames = Eigen::MatrixXd(1, frames)};
  for (Index k = 0; k < frames; ++k) in.frames(0, k) = static_cast<double>(k);
  return in;
}

const Value kWindow = Value::object({{"start_s", -0.02}, {"stop_s", 0.03}});

struct Counted {
  Collected y;
  std::unique_ptr<Counters> counters = std::make_unique<Counters>();
  std::int64_t count(const char* name) { return counters->get("node", name).value(); }
};
Counted run(const Value& params, const StageInput& in, Partition partition = {}) {
  Counted c;
  auto stage = make("epochs", params);
  c.y = run_stage(*stage, in, partition, {}, context_of(c.counters.get()));
  return c;
}

TEST(Epochs, CutsTheWindowAroundTheNearestFrame) {
  StageInput in = ramp(100);
  in.format = named(time_format(2, 100), {"a", "b"});
  in.frames.conservativeResize(2, Eigen::NoChange);
  in.frames.row(1) = -in.frames.row(0);
  in.format.start_s = 10;
  in.events = {event_at(10.104, 4), event_at(10.1, 5, "stop"), event_at(10.106, 9)};
  std::swap(in.events[0], in.events[1]);  // by onset
  Value params = kWindow;
  params["labels"] = Value(std::vector<std::string>{"go"});
  auto c = run(params, in);
  EXPECT_EQ(c.y.format.axis, Axis::item);
  EXPECT_EQ(c.y.format.parts[0].shape, (std::vector<Index>{5, 2}));
  EXPECT_THAT(c.y.keys, ElementsAre(4, 9));
  const auto y = c.y.matrix();
  EXPECT_EQ(y.col(0), (Eigen::VectorXd(10) << 8, -8, 9, -9, 10, -10, 11, -11, 12, -12).finished());
  EXPECT_EQ(y.col(1), (Eigen::VectorXd(10) << 9, -9, 10, -10, 11, -11, 12, -12, 13, -13).finished());
}

TEST(Epochs, TakesTheBaselineOff) {
  StageInput in = ramp(40);
  in.frames(0, 18) = kNaN;
  in.events = {event_at(0.2, 0), event_at(0.3, 1)};
  Value params = kWindow;
  params["baseline_s"] = Value(std::vector<double>{-0.02, 0.0});
  const auto y = run(params, in).y.matrix();
  EXPECT_TRUE(std::isnan(y(0, 0)));
  EXPECT_EQ(y.col(0).tail(4), Eigen::Vector4d(0, 1, 2, 3));  // frame 19 alone is the baseline
  EXPECT_EQ(y.col(1), (Eigen::VectorXd(5) << -0.5, 0.5, 1.5, 2.5, 3.5).finished());
}

TEST(Epochs, LeavesOutWhatIsNotWhollyInside) {
  StageInput in = ramp(50);
  in.events = {event_at(0.01, 0), event_at(0.02, 1), event_at(0.47, 2), event_at(0.48, 3)};
  for (Index block : {1, 7, 50}) {
    auto c = run(kWindow, in, {.block = block});
    EXPECT_THAT(c.y.keys, ElementsAre(1, 2)) << block;
    EXPECT_EQ(c.count("epochs_outside"), 2) << block;
  }
}

TEST(Epochs, MarkersMayComeLateButNotTooLate) {
  StageInput in = ramp(400);
  for (int k = 0; k < 30; ++k) in.events.push_back(event_at(0.1 + 0.1 * k, k));
  Value params = kWindow;
  params["late_s"] = 0.2;
  const auto whole = run(params, in).y;
  ASSERT_EQ(whole.frames(), 30);
  for (Index block : {1, 37, 400}) {
    auto c = run(params, in, {.block = block, .late = 20});
    EXPECT_EQ(difference(whole, c.y), "") << block;
    EXPECT_EQ(c.count("events_too_late"), 0);
  }
  params["late_s"] = 0.0;
  auto c = run(params, in, {.block = 1, .late = 20});
  EXPECT_GT(c.count("events_too_late"), 0);
  EXPECT_EQ(c.count("events_too_late") + c.y.frames(), 30);
}

TEST(Epochs, WindowsBeforeAndAfterTheEvent) {
  StageInput in = ramp(200);
  in.events = {event_at(1.0, 0)};
  for (Index block : {1, 200}) {
    auto before = run(Value::object({{"start_s", -0.5}, {"stop_s", -0.3}}), in, {.block = block});
    ASSERT_EQ(before.y.frames(), 1);
    EXPECT_EQ(before.y.frame(0)[0], 50);
    auto after = run(Value::object({{"start_s", 0.3}, {"stop_s", 0.5}}), in, {.block = block});
    ASSERT_EQ(after.y.frames(), 1);
    EXPECT_EQ(after.y.frame(0)[0], 130);
  }
}

TEST(Epochs, LosesNoneWhenManyAreDueAtOnce) {
  StageInput in = ramp(300);
  // eight at one frame, then a run in which every frame is in five
  for (int k = 0; k < 8; ++k) in.events.push_back(event_at(0.5, k));
  for (int k = 0; k < 200; ++k) in.events.push_back(event_at(0.6 + 0.01 * k, 8 + k));
  const auto whole = run(kWindow, in);
  ASSERT_EQ(whole.y.frames(), 208);
  for (Index block : {1, 2, 37}) {
    auto c = run(kWindow, in, {.block = block});
    EXPECT_EQ(difference(whole.y, c.y), "") << block;
    EXPECT_EQ(c.count("epochs_lost"), 0);
  }
  // more than the declared overlap for long: counted, and the room still holds
  Value params = kWindow;
  params["overlap"] = 1;
  auto c = run(params, in, {.block = 37});
  EXPECT_EQ(c.count("epochs_lost") + c.y.frames(), 208);
  EXPECT_GT(c.count("epochs_lost"), 0);
}

TEST(Epochs, Refuses) {
  const auto f = time_format(1, 100);
  EXPECT_THAT(refusal("epochs", Value::object({{"start_s", 0.5}, {"stop_s", 0.5}}), f),
              HasSubstr("node.stop_s = 0.5 s: expected at least one frame of 0.01 s"));
  EXPECT_THAT(refusal("epochs", Value::object({{"baseline_s", Value(std::vector<double>{0.1})}}), f),
              HasSubstr("node.baseline_s = 1 numbers"));
  EXPECT_THAT(refusal("epochs", Value::object({{"baseline_s", Value(std::vector<double>{-0.5, 0})}}), f),
              HasSubstr("inside [-0.2, 0.8]"));
  EXPECT_THAT(refusal("epochs", Value::object({{"stop_s", 1e6}}), time_format(1000, 3e4)), HasSubstr("fit in memory"));
  EXPECT_THAT(refusal("epochs", Value::table(), item_format({4})), HasSubstr("frames with a clock"));
}

/// Stages one behind the other, pushed by hand. Each edge gives an event with the first block whose end passes it.
class Chain {
 public:
  Chain(StreamFormat in, std::vector<std::unique_ptr<Stage>> stages) {
    auto c = context_of(counters.get());
    for (auto& s : stages) {
      Link l{std::move(s), in, {}, {}, {}, {}, 0};
      l.out = l.stage->prepare(in, c);
      l.y.resize(l.out.size(), l.out.max_frames);
      l.keys.resize(static_cast<std::size_t>(l.out.max_frames));
      in = l.out;
      links_.push_back(std::move(l));
    }
  }
  void push(const Eigen::MatrixXd& x, const std::vector<Event>& fresh) { push(0, x.data(), x.cols(), fresh); }
  void flush() {
    for (std::size_t i = 0; i < links_.size(); ++i)
      for (Output o = room(links_[i]);; o = room(links_[i])) {
        const Index n = links_[i].stage->flush(o);
        if (n == 0) break;
        give(i, n, {});
      }
  }
  const StreamFormat& format(std::size_t i) const { return links_[i].out; }
  std::unique_ptr<Counters> counters = std::make_unique<Counters>();
  std::vector<Eigen::VectorXd> items;
  std::vector<std::int64_t> keys;

 private:
  struct Link {
    std::unique_ptr<Stage> stage;
    StreamFormat in, out;
    Eigen::MatrixXd y;
    std::vector<std::int64_t> keys;
    std::vector<Event> waiting;
    std::int64_t seen = 0;
  };
  static Output room(Link& l) {
    Output o;
    o.y = MutableFrames(l.y.data(), Scalar::f64, l.y.rows(), l.y.cols(), l.y.rows());
    o.keys = l.out.axis == Axis::item ? l.keys.data() : nullptr;
    return o;
  }
  void push(std::size_t i, const double* x, Index n, const std::vector<Event>& fresh) {
    Link& l = links_[i];
    l.waiting.insert(l.waiting.end(), fresh.begin(), fresh.end());
    const double end = l.in.time_of(l.seen + n);
    std::vector<Event> due;
    for (auto e = l.waiting.begin(); e != l.waiting.end();)
      if (e->onset_s < end) {
        due.push_back(*e);
        e = l.waiting.erase(e);
      } else {
        ++e;
      }
    Output o = room(l);
    const Block b{.x = ConstFrames(x, Scalar::f64, l.in.size(), n, l.in.size()),
                  .first_frame = l.seen,
                  .keys = {},
                  .events = due};
    const Index written = l.stage->process(b, o);
    l.seen += n;
    ASSERT_LE(written, l.out.max_frames);
    give(i, written, fresh);
  }
  void give(std::size_t i, Index n, const std::vector<Event>& fresh) {
    Link& l = links_[i];
    if (i + 1 < links_.size()) return push(i + 1, l.y.data(), n, fresh);
    for (Index k = 0; k < n; ++k) {
      items.push_back(l.y.col(k));
      keys.push_back(l.keys[static_cast<std::size_t>(k)]);
    }
  }
  std::vector<Link> links_;
};

/// 40 s at 1000 Hz: a bump centred on every event over a slow wave.
struct Evoked {
  Eigen::MatrixXd x = Eigen::MatrixXd(2, 40000);
  std::vector<Event> events;
  std::vector<Index> arrival;  ///< frame of the source with which the marker comes
  Evoked() {
    std::mt19937_64 random(5);
    for (std::int64_t k = 0; k < 70; ++k) {
      events.push_back(event_at(1.0 + 0.5 * static_cast<double>(k) + 0.005 * static_cast<double>(random() % 20), k));
      const auto late = static_cast<Index>(random() % 300);
      arrival.push_back(static_cast<Index>(events.back().onset_s * 1000) + 1 + late);
    }
    for (Index t = 0; t < x.cols(); ++t) {
      const double s = static_cast<double>(t) / 1000;
      double bump = 0;
      for (auto& e : events)
        if (const double d = (s - e.onset_s) / 0.02; std::abs(d) < 8) bump += std::exp(-d * d / 2);
      x(0, t) = bump;
      x(1, t) = -2 * bump + 0.1 * std::sin(0.3 * s);
    }
  }
  Chain run(Index block, bool late) const {
    StreamFormat f = time_format(2, 1000);
    f.max_frames = block;
    std::vector<std::unique_ptr<Stage>> all;
    all.push_back(make("fir", Value::object({{"pass", "low"}, {"high_hz", 60.0}, {"transition_hz", 30.0}})));
    all.push_back(make("decimate", Value::object({{"factor", 5}})));
    all.push_back(make("epochs", Value::object({{"start_s", -0.2}, {"stop_s", 0.3}, {"late_s", 0.4}})));
    Chain chain(f, std::move(all));
    std::mt19937_64 random(static_cast<std::uint64_t>(block));
    std::vector<bool> given(events.size());
    for (Index at = 0; at < x.cols();) {
      Index n = block == 997 ? 1 + static_cast<Index>(random() % 997) : block;
      n = std::min(n, x.cols() - at);
      std::vector<Event> fresh;
      for (std::size_t i = 0; i < events.size(); ++i) {
        const Index comes = late ? arrival[i] : static_cast<Index>(events[i].onset_s * 1000);
        if (!given[i] && comes < at + n) {
          fresh.push_back(events[i]);
          given[i] = true;
        }
      }
      if (late) std::reverse(fresh.begin(), fresh.end());
      chain.push(x.middleCols(at, n), fresh);
      at += n;
    }
    chain.flush();
    return chain;
  }
};

TEST(Clock, AnEvokedPeakStaysAtZeroThroughFirDecimateAndEpochs) {
  const Evoked evoked;
  const Chain chain = evoked.run(10007, false);
  EXPECT_DOUBLE_EQ(chain.format(0).start_s, -0.055);           // 111 taps at 1000 Hz
  EXPECT_NEAR(chain.format(1).start_s, -0.055 - 0.05, 1e-15);  // and 101 in decimate
  ASSERT_EQ(chain.items.size(), 70u);
  for (auto& item : chain.items) {
    ASSERT_EQ(item.size(), 200);  // 100 samples of 2 rows
    const Eigen::Map<const Eigen::MatrixXd> y(item.data(), 2, 100);
    Index peak = 0, trough = 0;
    y.row(0).maxCoeff(&peak);
    y.row(1).minCoeff(&trough);
    // sample 40 of 200 Hz from -0.2 s is 0.0 ms
    ASSERT_EQ(peak, 40);
    ASSERT_EQ(trough, 40);
    for (Index k = 1; k < 20; ++k) ASSERT_NEAR(y(0, 40 - k), y(0, 40 + k), 1e-6);  // and the bump is even about it
  }
}

TEST(Clock, BlocksAndLateMarkersDoNotChangeABit) {
  const Evoked evoked;
  const Chain whole = evoked.run(40000, false);
  ASSERT_EQ(whole.items.size(), 70u);
  for (Index block : {1, 37, 997, 10007})
    for (bool late : {false, true}) {
      const Chain other = evoked.run(block, late);
      ASSERT_EQ(other.keys, whole.keys) << block;
      ASSERT_EQ(other.items, whole.items) << block;
      EXPECT_EQ(other.counters->nonzero(), whole.counters->nonzero());
    }
}

}  // namespace
}  // namespace percept::testing
