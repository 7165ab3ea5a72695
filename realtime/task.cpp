#include "realtime/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "core/error.h"

namespace percept {

namespace {
constexpr std::size_t kMostTrials = std::size_t{1} << 16;
constexpr double kTick = 1e-9;  ///< times of frames are multiples of a bin, but for rounding

/// 0 ... n - 1 in a random order, into room that is there.
void shuffle(const KeyedRandom& random, std::vector<int>& order, std::int64_t key) noexcept {
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[static_cast<std::size_t>(
                            random.below(static_cast<std::int64_t>(i) + 1, key, static_cast<std::uint64_t>(i)))]);
}
}  // namespace

bool TaskTarget::contains(double px, double py) const noexcept {
  const double dx = px - x, dy = py - y;
  return square ? std::abs(dx) <= half && std::abs(dy) <= half : dx * dx + dy * dy <= half * half;
}

const char* name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::acquired:
      return "acquired";
    case Outcome::late:
      return "late";
    case Outcome::wrong:
      return "wrong";
    case Outcome::aborted:
      return "aborted";
  }
  return "";
}

void TrialLog::add(const Trial& trial) noexcept {
  const std::size_t at = size_.load(std::memory_order_relaxed);
  if (at == trials_.size()) {
    lost_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  trials_[at] = trial;
  size_.store(at + 1, std::memory_order_release);
}

/// Where targets are: the n-th, given where the one before was.
struct Task::Layout {
  virtual ~Layout() = default;
  virtual TaskTarget target(std::int64_t number) noexcept = 0;
  /// What is at a place besides the target: a key, or -1.
  virtual int at(double, double) const noexcept { return -1; }
  virtual bool jumps_back() const noexcept { return false; }
};

struct Task::CentreOut final : Task::Layout {
  explicit CentreOut(const CentreOutParams& given)
      : p(given), random(static_cast<std::uint64_t>(given.seed), "task centre_out"),
        order(static_cast<std::size_t>(given.targets)) {}
  TaskTarget target(std::int64_t number) noexcept override {
    const bool jumps = jumps_back();
    TaskTarget t{.half = p.radius};
    if (!jumps && number % 2 == 0) return t;  // the way begins with the centre
    const std::int64_t reach = jumps ? number : number / 2, block = reach / p.targets;
    if (block != shuffled) {
      shuffle(random, order, block);
      shuffled = block;
    }
    const int place = order[static_cast<std::size_t>(reach % p.targets)];
    const double angle = 2 * std::numbers::pi * place / static_cast<double>(p.targets);
    t.number = place + 1;
    t.x = p.distance * std::cos(angle);
    t.y = p.distance * std::sin(angle);
    return t;
  }
  bool jumps_back() const noexcept override { return p.back == "jump"; }

  CentreOutParams p;
  KeyedRandom random;
  std::vector<int> order;
  std::int64_t shuffled = -1;
};

struct Task::Fitts final : Task::Layout {
  explicit Fitts(const FittsParams& given)
      : p(given), random(static_cast<std::uint64_t>(given.seed), "task fitts"),
        order(given.distances.size() * given.widths.size()) {}
  TaskTarget target(std::int64_t number) noexcept override {
    const std::int64_t in_sequence = p.targets + 1, sequence = number / in_sequence, k = number % in_sequence;
    const auto conditions = static_cast<std::int64_t>(order.size());
    if (sequence / conditions != shuffled) {
      shuffled = sequence / conditions;
      shuffle(random, order, shuffled);
    }
    TaskTarget t;
    t.condition = order[static_cast<std::size_t>(sequence % conditions)];
    const std::size_t n_widths = p.widths.size(), c = static_cast<std::size_t>(t.condition);
    const double distance = p.distances[c / n_widths];
    t.half = p.widths[c % n_widths] / 2;
    t.counted = k > 0;
    if (p.layout == "ring") {
      // half the ring further each time: every place once before any twice
      t.number = static_cast<int>(k * ((p.targets + 1) / 2) % p.targets);
      const double angle = 2 * std::numbers::pi * t.number / static_cast<double>(p.targets);
      t.x = distance / 2 * std::cos(angle);
      t.y = distance / 2 * std::sin(angle);
    } else {
      t.number = static_cast<int>(k);
      if (k > 0) {
        // a direction in which there is room
        const double room = p.reach - t.half;
        for (std::uint64_t draw = 0; draw < 64; ++draw) {
          const double angle = 2 * std::numbers::pi * random.uniform(number, draw + 64);
          t.x = x + distance * std::cos(angle);
          t.y = y + distance * std::sin(angle);
          if (std::abs(t.x) <= room && std::abs(t.y) <= room) break;
          // over the middle there is room, since no distance is longer than what the constructor takes
          const double far = std::hypot(x, y);
          t.x = far > 0 ? x - distance * x / far : distance;
          t.y = far > 0 ? y - distance * y / far : 0;
        }
      }
      x = t.x;
      y = t.y;
    }
    return t;
  }

  FittsParams p;
  KeyedRandom random;
  std::vector<int> order;
  std::int64_t shuffled = -1;
  double x = 0, y = 0;
};

struct Task::Grid final : Task::Layout {
  explicit Grid(const GridParams& given)
      : p(given), random(static_cast<std::uint64_t>(given.seed), "task grid"),
        key(p.side / static_cast<double>(p.keys)) {}
  TaskTarget target(std::int64_t number) noexcept override {
    const std::int64_t n = p.keys * p.keys;
    // any key but the last one
    last = last < 0 ? random.below(n, number) : (last + 1 + random.below(n - 1, number)) % n;
    TaskTarget t{.half = key / 2, .square = true, .number = static_cast<int>(last)};
    t.x = (static_cast<double>(last % p.keys) + 0.5) * key - p.side / 2;
    t.y = (static_cast<double>(last / p.keys) + 0.5) * key - p.side / 2;
    return t;
  }
  int at(double px, double py) const noexcept override {
    const double column = std::floor((px + p.side / 2) / key), row = std::floor((py + p.side / 2) / key);
    const auto n = static_cast<double>(p.keys);
    if (!(column >= 0 && column < n && row >= 0 && row < n)) return -1;
    return static_cast<int>(row * n + column);
  }

  GridParams p;
  KeyedRandom random;
  double key;
  std::int64_t last = -1;
};

Task::Task(const Value& params, const std::string& where)
    : trial_start_(Label::of("trial_start")), target_shown_(Label::of("target_shown")),
      acquired_(Label::of("acquired")), failed_(Label::of("failed")), wrong_(Label::of("wrong")),
      aborted_(Label::of("aborted")), log_(kMostTrials) {
  Value own = params;
  const Value* use = params.find("use");
  std::vector<std::string> known;
  for (auto& kind : task_kinds()) known.push_back(kind.name);
  const auto all = fmt::format("one of {}", fmt::join(known, ", "));
  if (!use) throw ConfigError(where + ".use", "", all);
  if (!use->is_string()) throw ConfigError(where + ".use", to_json(*use), all);
  use_ = use->as_string();
  own.erase("use");
  if (use_ == "centre_out") {
    const auto p = read_params<CentreOutParams>(own, where);
    if (p.back == "reach" && p.targets > 1 && !(p.radius < p.distance))
      throw ConfigError(where + ".radius", fmt::format("{}", p.radius),
                        fmt::format("less than the distance, which is {}", p.distance));
    common_ = p;
    extent_ = p.distance + p.radius;
    layout_ = std::make_unique<CentreOut>(p);
  } else if (use_ == "fitts") {
    const auto p = read_params<FittsParams>(own, where);
    if (p.distances.empty() || p.widths.empty())
      throw ConfigError(where + (p.distances.empty() ? ".distances" : ".widths"), "[]", "at least one");
    const double longest = *std::max_element(p.distances.begin(), p.distances.end());
    const double widest = *std::max_element(p.widths.begin(), p.widths.end());
    if (p.layout == "ring" && p.targets % 2 == 0)
      throw ConfigError(where + ".targets", fmt::format("{}", p.targets), "an odd number of places on the ring");
    if (p.layout == "random" && longest > p.reach - widest / 2)
      throw ConfigError(where + ".distances", fmt::format("{}", longest),
                        fmt::format("at most {}: reach less half the widest target", p.reach - widest / 2));
    common_ = p;
    extent_ = p.layout == "ring" ? (longest + widest) / 2 : p.reach;
    layout_ = std::make_unique<Fitts>(p);
  } else if (use_ == "grid") {
    const auto p = read_params<GridParams>(own, where);
    common_ = p;
    extent_ = p.side / 2;
    keys_ = static_cast<int>(p.keys);
    side_ = p.side;
    layout_ = std::make_unique<Grid>(p);
  } else {
    throw ConfigError(where + ".use", "\"" + use_ + "\"", all + did_you_mean(use_, known));
  }
  if (common_.select == "dwell" && !(common_.hold_s < common_.limit_s))
    throw ConfigError(where + ".hold_s", fmt::format("{}", common_.hold_s),
                      fmt::format("less than limit_s, which is {}", common_.limit_s));
  started_ = !common_.wait_for_start;
}
Task::~Task() = default;

void Task::tell(Label label, double t_s, double value) noexcept {
  if (n_events_ < events_.size())
    events_[n_events_++] = {.onset_s = t_s, .value = value, .id = number_, .label = label};
}

void Task::begin(const Frame& f) noexcept {
  target_ = layout_->target(number_);
  phase_ = Phase::reach;
  trial_ = {.target = target_,
            .shown_s = f.t_s,
            .entered_s = std::numeric_limits<double>::quiet_NaN(),
            .start_x = f.x,
            .start_y = f.y,
            .assist = f.assist,
            .fits = f.fits};
  path_ = 0;
  inside_ = false;
  over_ = -1;
  tell(trial_start_, f.t_s, target_.number);
  tell(target_shown_, f.t_s, target_.number);
}

void Task::end(const Frame& f, Outcome outcome, double value, Result& result) noexcept {
  trial_.outcome = outcome;
  trial_.end_s = f.t_s;
  trial_.end_x = f.x;
  trial_.end_y = f.y;
  if (trial_.entries == 0) trial_.path = path_;
  log_.add(trial_);
  const std::array<Label, 4> labels{acquired_, failed_, wrong_, aborted_};
  tell(labels[static_cast<std::size_t>(outcome)], f.t_s, value);
  if (outcome != Outcome::aborted && target_.counted && trial_.assist == 0) ++counted_;
  ++number_;
  over_ = -1;
  held_s_ = 0;
  phase_ = common_.trials > 0 && counted_ >= common_.trials ? Phase::done : Phase::pause;
  next_s_ = f.t_s + common_.pause_s;
  if (layout_->jumps_back() && outcome != Outcome::aborted) {
    result.jump = true;
    result.x = result.y = 0;
    placed_ = false;
  }
}

Task::Result Task::step(const Frame& f) noexcept {
  Result result;
  n_events_ = 0;
  const bool click = f.click && !click_;  // its beginning
  click_ = f.click;
  const double step = placed_ ? std::hypot(f.x - last_x_, f.y - last_y_) : 0;
  last_x_ = f.x;
  last_y_ = f.y;
  placed_ = true;
  const bool runs = started() && !f.stopped;
  switch (phase_) {
    case Phase::waiting:
    case Phase::pause:
      if (!runs) phase_ = Phase::waiting;
      else if (phase_ == Phase::waiting || f.t_s >= next_s_ - kTick) begin(f);
      break;
    case Phase::reach: {
      path_ += step;
      trial_.assist = std::max(trial_.assist, f.assist);
      const bool inside = target_.contains(f.x, f.y);
      if (inside && !inside_) {
        trial_.entered_s = f.t_s;
        trial_.entry_x = f.x;
        trial_.entry_y = f.y;
        trial_.path = path_;
        ++trial_.entries;
      }
      inside_ = inside;
      // what would be selected: the target, or another key
      const int over = inside ? target_.number : layout_->at(f.x, f.y);
      if (over != over_) over_since_s_ = f.t_s;
      over_ = over;
      held_s_ = over >= 0 ? f.t_s - over_since_s_ : 0;
      if (!runs) {
        end(f, Outcome::aborted, 0, result);
        phase_ = Phase::waiting;
        break;
      }
      const bool by_click = common_.select == "click";
      const bool selected = by_click ? click : over >= 0 && held_s_ >= common_.hold_s - kTick;
      if (selected && inside) end(f, Outcome::acquired, trial_.entered_s - trial_.shown_s, result);
      else if (selected) end(f, Outcome::wrong, over, result);
      else if (f.t_s - trial_.shown_s >= common_.limit_s - kTick) end(f, Outcome::late, f.t_s - trial_.shown_s, result);
      break;
    }
    case Phase::done:
      break;
  }
  result.events = std::span<const Event>(events_.data(), n_events_);
  return result;
}

const std::vector<TaskInfo>& task_kinds() {
  static const std::vector<TaskInfo> all{
      {"centre_out", "From the centre to targets on a circle, and back.", describe_params<CentreOutParams>()},
      {"fitts", "Targets of several distances and widths; throughput as in ISO 9241-9.",
       describe_params<FittsParams>()},
      {"grid", "A keyboard of n x n keys; achieved bit rate.", describe_params<GridParams>()}};
  return all;
}

}  // namespace percept
