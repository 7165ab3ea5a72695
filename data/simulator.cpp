#include "data/simulator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <numeric>

#include "core/error.h"

namespace percept::data {

namespace {
constexpr int kTargets = 8;
constexpr double kReaction = 0.2;  // s from the go signal to the first movement
constexpr double kHold = 0.2;      // s on the target
constexpr double kGoEarliest = 0.1, kGoSpread = 0.2;
constexpr double kDurationSpread = 0.3;  // of the reach, relative, from 0.85 to 1.15
constexpr double kWalkKnot_s = 10;
constexpr Index kMostKnots = Index{1} << 27;  // a gigabyte

/// Way travelled (0..1) and its slope at phase u of a minimum-jerk movement.
double jerk_way(double u) { return u * u * u * (10 + u * (6 * u - 15)); }
double jerk_slope(double u) { return 30 * u * u * (1 - u) * (1 - u); }

/// A gain with mean 1 whose logarithm is normal.
double gain(const KeyedRandom& random, double spread, std::int64_t key, std::uint64_t draw) {
  return spread > 0 ? std::exp(spread * random.normal(key, draw) - 0.5 * spread * spread) : 1.0;
}

double between_knots(const Eigen::MatrixXd& knots, Index row, double place) {
  const double clamped = std::clamp(place, 0.0, static_cast<double>(knots.cols() - 1));
  const Index k = std::min(static_cast<Index>(clamped), knots.cols() - 2);
  const double f = clamped - static_cast<double>(k);
  return (1 - f) * knots(row, k) + f * knots(row, k + 1);
}

/// Frames computed on demand; f(frame, values) fills one.
template <class F>
class ComputedSource final : public SampleSource {
 public:
  ComputedSource(std::int64_t frames, Index rows, F f) : frames_(frames), rows_(rows), f_(std::move(f)) {}
  std::int64_t frames() const override { return frames_; }
  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || first + out.frames > frames_ || out.rows != rows_)
      throw DataError("simulator", "frames", fmt::format("{} rows inside [0, {})", rows_, frames_),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    std::vector<double> values(static_cast<std::size_t>(rows_));
    for (Index k = 0; k < out.frames; ++k) {
      f_(first + k, std::span<double>(values));
      copy_frames(ConstFrames(values.data(), Scalar::f64, rows_, 1, rows_), out.slice(k, 1));
    }
  }

 private:
  std::int64_t frames_;
  Index rows_;
  F f_;
};

template <class F>
Stream computed_stream(const std::string& name, const std::string& unit, double rate_hz, Scalar scalar,
                       std::vector<Channel> rows, std::int64_t frames, F f) {
  Stream s;
  s.name = name;
  const auto n = static_cast<Index>(rows.size());
  s.format = time_format(n, rate_hz, scalar, name);
  s.format.start_s = 0.5 / rate_hz;
  s.format.parts[0].unit = unit;
  s.format.parts[0].rows = std::move(rows);
  s.samples = std::make_shared<ComputedSource<F>>(frames, n, std::move(f));
  return s;
}
}  // namespace

ReachSimulator::ReachSimulator(const Params& p, const std::string& where)
    : p_(p), frames_(static_cast<std::int64_t>(std::floor(p.duration_s * p.rate_hz + 1e-9))),
      reference_speed_(jerk_slope(0.5) * p.distance_m / p.reach_s),
      trials_(static_cast<std::uint64_t>(p.seed), "reach trials"),
      shared_(static_cast<std::uint64_t>(p.seed), "reach shared noise"),
      private_(static_cast<std::uint64_t>(p.seed), "reach private noise"),
      counts_(static_cast<std::uint64_t>(p.seed), "reach counts") {
  if (frames_ < 1)
    throw ConfigError(where + ".duration_s", fmt::format("{}", p.duration_s), "at least one bin of 1 / rate_hz");
  const double longest = kGoEarliest + kGoSpread + kReaction + kHold + 2 * (1 + kDurationSpread / 2) * p.reach_s;
  if (p.trial_s < longest)
    throw ConfigError(where + ".trial_s", fmt::format("{}", p.trial_s),
                      fmt::format("at least {} s for reaches of {} s", longest, p.reach_s));

  const auto n = static_cast<Index>(p.channels);
  const KeyedRandom draw(static_cast<std::uint64_t>(p.seed), "reach units");
  // the units with the smallest numbers are the ones drawn
  const auto drawn = [&](double fraction, std::uint64_t purpose) {
    std::vector<Index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), Index{0});
    std::vector<double> number(order.size());
    for (Index i = 0; i < n; ++i) number[static_cast<std::size_t>(i)] = draw.uniform(i, purpose);
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      return number[static_cast<std::size_t>(a)] < number[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(std::llround(fraction * static_cast<double>(n))));
    return order;
  };
  const auto around = [&](double typical, Index i, std::uint64_t purpose) {
    return typical * std::exp(0.3 * draw.normal(i, purpose));
  };
  units_.resize(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) {
    Unit& u = units_[static_cast<std::size_t>(i)];
    u.direction_rad = u.changed_direction_rad = 2 * std::numbers::pi * draw.uniform(i, 0);
    u.baseline_hz = around(p.baseline_hz, i, 1);
    u.depth_hz = around(p.depth_hz, i, 2);
    u.speed_hz = around(p.speed_hz, i, 3);
  }
  for (Index i : drawn(p.dead_fraction, 4)) units_[static_cast<std::size_t>(i)].dead = true;
  for (Index i : drawn(p.change_fraction, 5))
    units_[static_cast<std::size_t>(i)].changed_direction_rad = 2 * std::numbers::pi * draw.uniform(i, 6);
  cosines_.resize(4, n);
  for (Index i = 0; i < n; ++i) {
    const Unit& u = units_[static_cast<std::size_t>(i)];
    cosines_.col(i) << std::cos(u.direction_rad), std::sin(u.direction_rad), std::cos(u.changed_direction_rad),
        std::sin(u.changed_direction_rad);
  }

  const auto knots = [&](double every_s, const char* key) {
    const auto k = static_cast<Index>(std::ceil(p.duration_s / every_s)) + 1;
    if (k > kMostKnots / n)
      throw ConfigError(where + "." + key, "", fmt::format("a shorter recording: it would need {} x {} numbers", n, k));
    return k;
  };
  if (p.drift > 0) {
    const KeyedRandom drift(static_cast<std::uint64_t>(p.seed), "reach drift");
    drift_.resize(n, knots(p.drift_s, "drift"));
    for (Index k = 0; k < drift_.cols(); ++k)
      for (Index i = 0; i < n; ++i) drift_(i, k) = p.drift * drift.normal(k, static_cast<std::uint64_t>(i));
  }
  if (p.tuning_walk_rad > 0) {
    const KeyedRandom walk(static_cast<std::uint64_t>(p.seed), "reach tuning walk");
    const double step = p.tuning_walk_rad * std::sqrt(kWalkKnot_s / 3600);
    walk_.setZero(n, knots(kWalkKnot_s, "tuning_walk_rad"));
    for (Index k = 1; k < walk_.cols(); ++k)
      for (Index i = 0; i < n; ++i)
        walk_(i, k) = walk_(i, k - 1) + step * walk.normal(k, static_cast<std::uint64_t>(i));
  }
}

ReachSimulator::Trial ReachSimulator::trial(std::int64_t number) const noexcept {
  const std::int64_t block = number >= 0 ? number / kTargets : -((kTargets - 1 - number) / kTargets);
  std::array<int, kTargets> order;
  std::iota(order.begin(), order.end(), 0);
  for (int i = kTargets - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)],
              order[static_cast<std::size_t>(trials_.below(i + 1, block, static_cast<std::uint64_t>(i)))]);
  Trial t;
  t.target = order[static_cast<std::size_t>(number - block * kTargets)];
  const double reach = p_.reach_s * (1 + kDurationSpread * (trials_.uniform(number, 100) - 0.5));
  t.go_s = static_cast<double>(number) * p_.trial_s + kGoEarliest + kGoSpread * trials_.uniform(number, 101);
  t.reach_begin_s = t.go_s + kReaction;
  t.reach_end_s = t.reach_begin_s + reach;
  t.back_begin_s = t.reach_end_s + kHold;
  t.back_end_s = t.back_begin_s + reach;
  return t;
}

ReachSimulator::Hand ReachSimulator::hand(double t_s) const noexcept {
  const Trial t = trial(static_cast<std::int64_t>(std::floor(t_s / p_.trial_s)));
  const double reach = t.reach_end_s - t.reach_begin_s;
  double way = 0, slope = 0;
  if (t_s > t.reach_begin_s && t_s < t.reach_end_s) {
    const double u = (t_s - t.reach_begin_s) / reach;
    way = jerk_way(u);
    slope = jerk_slope(u) / reach;
  } else if (t_s >= t.reach_end_s && t_s <= t.back_begin_s) {
    way = 1;
  } else if (t_s > t.back_begin_s && t_s < t.back_end_s) {
    const double u = (t_s - t.back_begin_s) / reach;
    way = 1 - jerk_way(u);
    slope = -jerk_slope(u) / reach;
  }
  const double angle = t.target * 2 * std::numbers::pi / kTargets;
  const double x = p_.distance_m * std::cos(angle), y = p_.distance_m * std::sin(angle);
  return {way * x, way * y, slope * x, slope * y};
}

double ReachSimulator::direction(Index unit, double t_s) const noexcept {
  const Unit& u = units_[static_cast<std::size_t>(unit)];
  const double start = t_s < p_.change_s ? u.direction_rad : u.changed_direction_rad;
  return walk_.size() ? start + between_knots(walk_, unit, t_s / kWalkKnot_s) : start;
}

void ReachSimulator::rates(std::int64_t frame, double vx, double vy, std::span<double> hz) const noexcept {
  const double t = time_of(frame);
  const double speed = std::hypot(vx, vy) / reference_speed_;
  const double x = vx / reference_speed_, y = vy / reference_speed_;
  const double common = gain(shared_, p_.shared_noise, frame, 0);
  const Index column = t < p_.change_s ? 0 : 2;
  const std::size_t n = std::min(hz.size(), units_.size());
  for (std::size_t i = 0; i < n; ++i) {
    const Unit& u = units_[i];
    const auto row = static_cast<Index>(i);
    if (u.dead) {
      hz[i] = 0;
      continue;
    }
    double c = cosines_(column, row), s = cosines_(column + 1, row);
    if (walk_.size()) {
      const double angle = direction(row, t);
      c = std::cos(angle);
      s = std::sin(angle);
    }
    const double base =
        drift_.size() ? u.baseline_hz * (1 + between_knots(drift_, row, t / p_.drift_s)) : u.baseline_hz;
    const double drive = base + u.speed_hz * speed + u.depth_hz * (x * c + y * s);
    const double rate = p_.max_hz > 0 ? p_.max_hz * std::tanh(drive / p_.max_hz) : drive;
    hz[i] = rate > 0 ? common * gain(private_, p_.private_noise, frame, i) * rate : 0;
  }
}

void ReachSimulator::counts(std::int64_t frame, double vx, double vy, std::span<double> out) const noexcept {
  rates(frame, vx, vy, out);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = out[i] > 0 ? static_cast<double>(counts_.poisson(out[i] / p_.rate_hz, frame, i)) : 0;
}

void ReachSimulator::counts(std::int64_t frame, std::span<double> out) const noexcept {
  const Hand h = hand(time_of(frame) + p_.lag_s);
  counts(frame, h.vx, h.vy, out);
}

Recording ReachSimulator::recording() const {
  const auto self = std::make_shared<const ReachSimulator>(*this);
  Recording r;
  r.name = "reach";
  std::vector<Channel> channels;
  for (std::size_t i = 0; i < units_.size(); ++i)
    channels.push_back({.name = fmt::format("unit_{}", i), .kind = "unit", .unit = "", .position = {}, .good = true});
  r.streams.push_back(computed_stream("activity", "1", p_.rate_hz, Scalar::f32, channels, frames_,
                                      [self](std::int64_t k, std::span<double> out) { self->counts(k, out); }));
  const std::vector<Channel> hand_rows{{.name = "px", .kind = "position", .unit = "m", .position = {}, .good = true},
                                       {.name = "py", .kind = "position", .unit = "m", .position = {}, .good = true},
                                       {.name = "vx", .kind = "velocity", .unit = "m/s", .position = {}, .good = true},
                                       {.name = "vy", .kind = "velocity", .unit = "m/s", .position = {}, .good = true}};
  r.streams.push_back(computed_stream("kinematics", "1", p_.rate_hz, Scalar::f64, hand_rows, frames_,
                                      [self](std::int64_t k, std::span<double> out) {
                                        const Hand h = self->hand(self->time_of(k));
                                        out[0] = h.px, out[1] = h.py, out[2] = h.vx, out[3] = h.vy;
                                      }));
  r.streams.push_back(computed_stream("velocity", "m/s", p_.rate_hz, Scalar::f64,
                                      {hand_rows.begin() + 2, hand_rows.end()}, frames_,
                                      [self](std::int64_t k, std::span<double> out) {
                                        const Hand h = self->hand(self->time_of(k));
                                        out[0] = h.vx, out[1] = h.vy;
                                      }));

  const double end = static_cast<double>(frames_) / p_.rate_hz;
  std::array<Label, kTargets> labels;
  for (int i = 0; i < kTargets; ++i) labels[static_cast<std::size_t>(i)] = Label::of(fmt::format("target_{}", i));
  const Label reach_end = Label::of("reach_end");
  for (std::int64_t k = 0; static_cast<double>(k) * p_.trial_s < end; ++k) {
    const Trial t = trial(k);
    const auto add = [&](double onset, double duration, Label label) {
      if (onset >= end) return;
      Event e;
      e.onset_s = onset;
      e.duration_s = duration;
      e.value = t.target;
      e.id = static_cast<std::int64_t>(r.events.size());
      e.label = label;
      r.events.push_back(e);
    };
    add(t.go_s, t.reach_end_s - t.go_s, labels[static_cast<std::size_t>(t.target)]);
    add(t.reach_end_s, 0, reach_end);
  }

  Table truth{"units",
              {{"unit", {}, {}},
               {"direction_rad", {}, {}},
               {"changed_direction_rad", {}, {}},
               {"baseline_hz", {}, {}},
               {"depth_hz", {}, {}},
               {"speed_hz", {}, {}},
               {"dead", {}, {}}}};
  for (std::size_t i = 0; i < units_.size(); ++i) {
    const Unit& u = units_[i];
    const double row[] = {static_cast<double>(i), u.direction_rad, u.changed_direction_rad,
                          u.baseline_hz,          u.depth_hz,      u.speed_hz,
                          u.dead ? 1.0 : 0.0};
    for (std::size_t c = 0; c < truth.columns.size(); ++c) truth.columns[c].numbers.push_back(row[c]);
  }
  r.tables.push_back(std::move(truth));
  r.meta["title"] = "simulated centre-out reaches";
  r.meta["simulate"] = "reach";
  r.meta["truth"] = write_params(p_);
  r.meta["truth"]["reference_speed_m_s"] = reference_speed_;
  return r;
}

Recording noise_recording(const NoiseParams& p) {
  Recording r;
  r.name = "noise";
  std::vector<Channel> rows;
  for (std::int64_t i = 0; i < p.channels; ++i)
    rows.push_back({.name = fmt::format("row_{}", i), .kind = "noise", .unit = "", .position = {}, .good = true});
  const auto frames = static_cast<std::int64_t>(std::floor(p.duration_s * p.rate_hz + 1e-9));
  if (frames < 1)
    throw ConfigError("noise.duration_s", fmt::format("{}", p.duration_s), "at least one frame of 1 / rate_hz");
  r.streams.push_back(
      computed_stream("signal", "1", p.rate_hz, Scalar::f32, std::move(rows), frames,
                      [spread = p.spread, random = KeyedRandom(static_cast<std::uint64_t>(p.seed), "noise")](
                          std::int64_t k, std::span<double> out) {
                        for (std::size_t i = 0; i < out.size(); ++i) out[i] = spread * random.normal(k, i);
                      }));
  r.meta["title"] = "white noise";
  r.meta["simulate"] = "noise";
  r.meta["truth"] = write_params(p);
  return r;
}

std::vector<SimulatorInfo> simulators() {
  return {{"reach", "Motor-cortex units with known tuning during centre-out reaches.",
           describe_params<ReachSimulator::Params>()},
          {"noise", "White noise of any size.", describe_params<NoiseParams>()}};
}

Recording simulate(const std::string& name, const Value& params, const std::string& where) {
  if (name == "reach") return ReachSimulator(read_params<ReachSimulator::Params>(params, where), where).recording();
  if (name == "noise") return noise_recording(read_params<NoiseParams>(params, where));
  std::vector<std::string> known;
  for (auto& s : simulators()) known.push_back(s.name);
  throw ConfigError(where, "\"" + name + "\"",
                    fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(name, known)));
}

}  // namespace percept::data
