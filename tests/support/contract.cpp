#include "tests/support/contract.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/graph.h"
#include "core/pipeline.h"
#include "tests/support/alloc.h"
#include "tests/support/driver.h"

namespace percept::testing {

// nothing may be thrown across the loop: every override is bound by these
static_assert(noexcept(std::declval<Stage&>().process(std::declval<const Block&>(), std::declval<Output&>())));
static_assert(noexcept(std::declval<Stage&>().flush(std::declval<Output&>())));
static_assert(noexcept(std::declval<Stage&>().reset()));
static_assert(noexcept(std::declval<Stage&>().visit_state(std::declval<StateVisitor&>())));

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Scalar kScalars[] = {Scalar::f32, Scalar::f64};

Context named_context() {
  Context c;
  c.node = "contract_node";
  return c;
}

std::unique_ptr<Stage> make(const StageInfo& info, const Sample& sample) {
  return info.make(sample.params, sample.model.get(), info.name);
}

/// Collects failures of one law; a check that throws is a failure too.
class Findings {
 public:
  void add(const std::string& where, const std::string& what) {
    if (result_.failures.size() < 12) result_.failures.push_back(where.empty() ? what : where + ": " + what);
  }
  void unless_same(const std::string& where, const Collected& a, const Collected& b, Index first_a = 0,
                   Index first_event_a = 0) {
    if (auto d = difference(a, b, first_a, first_event_a); !d.empty()) add(where, d);
  }
  template <class F>
  void attempt(const std::string& where, F f) {
    try {
      f();
    } catch (const std::exception& e) {
      add(where, std::string("throws: ") + e.what());
    }
  }
  ContractResult done() { return std::move(result_); }

 private:
  ContractResult result_;
};

struct Run {
  std::unique_ptr<Stage> stage;
  StageInput input;
  std::unique_ptr<StageDriver> driver;
  Run(const StageInfo& info, const Sample& sample, StageInput in, Partition p = {}, Layout l = {})
      : stage(make(info, sample)), input(std::move(in)),
        driver(std::make_unique<StageDriver>(*stage, input, p, l, named_context())) {}
  const Collected& all() {
    driver->run();
    driver->flush();
    return driver->output();
  }
};

Collected outcome(const StageInfo& info, const Sample& sample, const StageInput& in, Partition p = {}, Layout l = {}) {
  return Run(info, sample, in, p, l).all();
}

/// How late a marker may come: a stage can wait for it no longer than its declared latency.
Index late_frames(const StreamFormat& in, const Traits& traits) {
  return in.axis == Axis::time ? std::clamp<Index>(std::llround(traits.latency_s * in.rate_hz) - 1, 0, 100) : 0;
}

/// Traits of a stage prepared for the sample in blocks of one.
Traits prepared_traits(const StageInfo& info, const Sample& sample) {
  return Run(info, sample, input_of(sample, Scalar::f64, 1), {.block = 1}).stage->traits();
}
}  // namespace

std::string ContractResult::text() const {
  std::string all;
  for (auto& f : failures) all += f + "\n";
  return all;
}

ContractResult check_partition(const StageInfo& info, const Sample& sample) {
  struct Cut {
    const char* name;
    Partition partition;
    Layout layout = {};
  };
  const Cut cuts[] = {
      {"the same block again", {}},
      {"blocks of 1", {.block = 1}},
      {"blocks of 37", {.block = 37}},
      {"random blocks", {.block = 64, .random = 1}},
      {"large random blocks", {.block = 300, .random = 2}},
      {"input frames apart", {.block = 50}, {.input_gap = 3}},
      {"output frames apart", {.block = 50}, {.output_gap = 3}},
      {"frames off their alignment", {}, {.offset = 1}},
  };
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      const Collected whole = outcome(info, sample, input);
      if (whole.frames() == 0) found.add(name_of(scalar), "the sample gives no output, so nothing is tested");
      for (auto& c : cuts)
        found.unless_same(fmt::format("{}, {}", name_of(scalar), c.name), whole,
                          outcome(info, sample, input, c.partition, c.layout));
      if (const Index late = late_frames(input.format, prepared_traits(info, sample));
          late > 0 && !input.events.empty())
        for (Index block : {Index{1}, Index{37}})
          found.unless_same(fmt::format("{}, events up to {} frames late, blocks of {}", name_of(scalar), late, block),
                            whole, outcome(info, sample, input, {.block = block, .late = late}));
      // a sample of random numbers has any length: long enough for a block of 10 007
      if (sample.fill || input.format.axis != Axis::time || input.format.size() > 64) return;
      const StageInput longer = input_of(sample, scalar, 2 * 10007 + 123);
      const Collected big = outcome(info, sample, longer, {.block = 10007});
      found.unless_same(fmt::format("{}, blocks of 10007 and of 37", name_of(scalar)), big,
                        outcome(info, sample, longer, {.block = 37}));
      found.unless_same(fmt::format("{}, blocks of 10007 and random", name_of(scalar)), big,
                        outcome(info, sample, longer, {.block = 10007, .random = 3}));
    });
  return found.done();
}

namespace {
/// A stage that no other resembles, to make a state that none may take.
class Stranger final : public Stage {
 public:
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block&, Output&) noexcept override { return 0; }
  void reset() noexcept override {}
  void visit_state(StateVisitor& s) noexcept override { s("state of a stranger", value_); }

 private:
  double value_ = 1;
};

void check_middle(Findings& found, const StageInfo& info, const Sample& sample, const StageInput& input, Partition p,
                  Index middle, const std::string& where) {
  Run run(info, sample, input, p), restored(info, sample, input, p), swapped(info, sample, input, p),
      plain(info, sample, input, p);
  const std::size_t fresh_bytes = state_bytes(*run.stage);
  run.driver->run(0, middle);
  const Index frames = run.driver->output().frames();
  const auto events = static_cast<Index>(run.driver->output().events.size());
  const auto state = save_state(*run.stage);
  if (state_bytes(*run.stage) != fresh_bytes) found.add(where, "the size of the state changes while it runs");

  std::vector<std::byte> foreign = state;
  Stranger stranger;
  const auto strange = save_state(stranger);
  foreign.insert(foreign.end(), strange.begin(), strange.end());
  for (const auto& wrong : {strange, foreign}) {
    bool refused = false;
    try {
      restore_state(*run.stage, wrong);
    } catch (const Error&) {
      refused = true;
    }
    if (!refused) found.add(where, "takes the state of another stage");
  }

  restore_state(*restored.stage, state);
  std::vector<std::byte> scratch(fresh_bytes);
  if (!copy_state(*run.stage, *swapped.stage, scratch)) found.add(where, "a swap is refused");
  for (Run* r : {&run, &restored, &swapped}) {
    r->driver->run(middle);
    r->driver->flush();
  }
  plain.driver->run(0, middle);
  plain.driver->run(middle);
  plain.driver->flush();
  found.unless_same(where + ", saving changes what follows", run.driver->output(), plain.driver->output());
  found.unless_same(where + ", restored", plain.driver->output(), restored.driver->output(), frames, events);
  found.unless_same(where + ", swapped", plain.driver->output(), swapped.driver->output(), frames, events);
}

void check_reset(Findings& found, const StageInfo& info, const Sample& sample, const StageInput& input,
                 const std::string& where) {
  Run run(info, sample, input, {.block = 37});
  const Collected fresh = run.all();
  auto again = [&](const std::string& after) {
    run.stage->reset();
    run.driver->clear();
    found.unless_same(fmt::format("{}, reset {} equals new", where, after), fresh, run.all());
  };
  again("after the end");
  run.stage->reset();
  run.driver->run(0, input.frames.cols() / 2);
  again("in the middle");
}
}  // namespace

ContractResult check_state(const StageInfo& info, const Sample& sample) {
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      const Index n = input.frames.cols();
      check_reset(found, info, sample, input, name_of(scalar));
      if (prepared_traits(info, sample).memory_frames == Traits::kAllFrames) return;
      for (Index block : {Index{1}, Index{37}})
        for (Index middle : {n / 3, n / 2 + 1})
          check_middle(found, info, sample, input, {.block = block}, middle,
                       fmt::format("{}, blocks of {}, at frame {}", name_of(scalar), block, middle));
    });
  return found.done();
}

namespace {
struct Gap {
  const char* name;
  Index first, last;  ///< frames [first, last)
  Index row;          ///< -1: every row
};

/// How many input frames output frame k had before it: those given, but a stage that waits for what comes later says
/// by its clock or key which frame it answers; 0: not known.
double position(const StageInput& input, const Collected& out, Index k, const Traits& traits) {
  if (traits.causal) return static_cast<double>(out.given[static_cast<std::size_t>(k)]);
  const auto& f = input.format;
  if (out.format.axis == Axis::time) return (out.format.time_of(k) - f.start_s) * f.rate_hz + 1;
  if (f.axis == Axis::time) return 0;
  const auto key = out.keys[static_cast<std::size_t>(k)];
  return static_cast<double>(std::upper_bound(input.keys.begin(), input.keys.end(), key) - input.keys.begin());
}

/// Compares what came out with a gap in the input against what came out without.
void check_gap(Findings& found, const StageInput& input, const Collected& clean, const Collected& holed, const Gap& gap,
               const Traits& traits, Index slack, const std::string& where) {
  const bool items = clean.format.axis == Axis::item;
  if (!items && clean.frames() != holed.frames())
    return found.add(where, fmt::format("{} output frames, without the gap {}: the clock is broken", holed.frames(),
                                        clean.frames()));
  const bool finite_memory = traits.memory_frames >= 0;
  // a recursion is given half of what is left to recover
  const Index recovered =
      finite_memory ? gap.last + traits.memory_frames + slack : gap.last + (input.frames.cols() - gap.last) / 2;
  const double tolerance = clean.format.scalar == Scalar::f32 ? 1e-5 : 1e-10;
  double scale = 1e-300;
  for (double v : clean.values)
    if (std::isfinite(v)) scale = std::max(scale, std::abs(v));

  for (Index k = 0, c = 0; k < holed.frames(); ++k, ++c) {
    if (items) {  // an item may be left out
      while (c < clean.frames() && clean.keys[static_cast<std::size_t>(c)] < holed.keys[static_cast<std::size_t>(k)])
        ++c;
      if (c == clean.frames() || clean.keys[static_cast<std::size_t>(c)] != holed.keys[static_cast<std::size_t>(k)])
        return found.add(where, fmt::format("an item of key {} that is not there without the gap",
                                            holed.keys[static_cast<std::size_t>(k)]));
    }
    const Index given = holed.given[static_cast<std::size_t>(k)];
    const bool before = traits.causal && given <= gap.first;
    const bool after = position(input, holed, k, traits) > static_cast<double>(recovered);
    // an output whose whole past lies in a gap of every row
    const bool nothing = traits.causal && finite_memory && gap.row < 0 && given <= gap.last &&
                         given - 1 - traits.memory_frames - slack >= gap.first && k < holed.before_flush;
    bool any_missing = false;
    for (Index r = 0; r < clean.rows(); ++r) {
      const double a = clean.frame(c)[r], b = holed.frame(k)[r];
      const auto place = [&] { return fmt::format("frame {} row {}", k, r); };
      any_missing = any_missing || std::isnan(b);
      if (std::isinf(b) && !std::isinf(a)) return found.add(where, place() + " is infinite");
      if ((before || after) && std::isfinite(a) && !std::isfinite(b))
        return found.add(where, fmt::format("{} is {} though the input there is whole: {}", place(), b,
                                            before ? "it came before the gap" : "poisoned"));
      if ((before || (after && finite_memory)) && std::abs(a - b) > tolerance * scale)
        return found.add(where, fmt::format("{} is {} and without the gap {}: it was {} with a memory of {}", place(),
                                            b, a, before ? "before the gap" : "after the gap,", traits.memory_frames));
    }
    if (nothing && !any_missing)
      return found.add(where, fmt::format("frame {} is made of missing input only and has no NaN", k));
  }
}
}  // namespace

ContractResult check_missing(const StageInfo& info, const Sample& sample) {
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      const Index n = input.frames.cols();
      const Gap gaps[] = {{"one value", n / 4, n / 4 + 1, 0},
                          {"the last row for a while", n / 4, n / 4 + n / 20 + 1, input.frames.rows() - 1},
                          {"one frame", n / 3, n / 3 + 1, -1},
                          {"a burst", n / 3, n / 3 + n / 10 + 1, -1},
                          {"the start", 0, n / 10 + 1, -1},
                          {"the first row throughout", 0, n, 0},
                          {"everything", 0, n, -1}};
      for (Index block : {Index{1}, Index{64}}) {
        Run clean(info, sample, input, {.block = block});
        clean.all();
        const Traits traits = clean.stage->traits();
        const Index latency = input.format.axis == Axis::time
                                  ? static_cast<Index>(std::ceil(traits.latency_s * input.format.rate_hz - 1e-9))
                                  : 0;
        for (const Gap& g : gaps) {
          StageInput holed = input;
          auto hole = holed.frames.middleCols(g.first, g.last - g.first);
          if (g.row < 0) hole.setConstant(kNaN);
          else hole.row(g.row).setConstant(kNaN);
          // in blocks, `given` is known to the end of the block only
          const Index slack = latency + block - 1;
          check_gap(found, input, clean.driver->output(), outcome(info, sample, holed, {.block = block}), g, traits,
                    slack, fmt::format("{}, blocks of {}, {} missing", name_of(scalar), block, g.name));
        }
      }
    });
  return found.done();
}

ContractResult check_real_time(const StageInfo& info, const Sample& sample) {
  Findings found;
  found.attempt("", [&] {
    const Traits traits = prepared_traits(info, sample);
    if (traits.real_time != info.real_time)
      found.add(
          "", fmt::format("the registry says real_time = {}, the prepared stage {}", info.real_time, traits.real_time));
    if (traits.real_time && !traits.causal) found.add("", "real-time but not causal");
  });
  if (!info.real_time) return found.done();
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      StageInput input = input_of(sample, scalar);
      const Index n = input.frames.cols();
      input.frames.middleCols(n / 3, n / 20 + 1).setConstant(kNaN);
      input.frames.row(0).segment(n / 2, n / 20 + 1).setConstant(kNaN);
      outcome(info, sample, input);  // what libraries set up once in a process is not the stage's
      const Index late = late_frames(input.format, prepared_traits(info, sample));
      for (const Partition& p : {Partition{.block = 1, .late = late}, Partition{.block = 64, .random = 4}}) {
        Run run(info, sample, input, p), other(info, sample, input, p);
        const std::string where = fmt::format("{}, blocks of at most {}", name_of(scalar), p.block);
        run.all();
        if (run.driver->allocations())
          found.add(where, fmt::format("{} heap allocations while running", run.driver->allocations()));
        std::vector<std::byte> scratch(state_bytes(*run.stage));
        const AllocationCounter counter;
        copy_state(*run.stage, *other.stage, scratch);
        run.stage->reset();
        if (counter.count()) found.add(where, fmt::format("{} heap allocations in swap and reset", counter.count()));
      }
    });
  return found.done();
}

namespace {
void check_format(Findings& found, const StreamFormat& in, const StreamFormat& out, const std::string& where) {
  if (out.scalar != in.scalar) found.add(where, "the output has another scalar than the input");
  if (out.max_frames < 1) found.add(where, fmt::format("max_frames = {}", out.max_frames));
  if (out.axis == Axis::time && !(out.rate_hz > 0 && std::isfinite(out.rate_hz) && std::isfinite(out.start_s)))
    found.add(where, fmt::format("a clock of {} Hz from {} s", out.rate_hz, out.start_s));
  if (out.axis == Axis::item && out.rate_hz != 0) found.add(where, "items with a rate");
  if (out.parts.empty()) found.add(where, "no part");
  std::set<std::string> names;
  for (auto& p : out.parts) {
    if (p.name.empty() || !names.insert(p.name).second)
      found.add(where, fmt::format("part name '{}' is empty or taken", p.name));
    if (p.size() < 1) found.add(where, fmt::format("part '{}' is empty", p.name));
    const auto named = static_cast<Index>(p.rows.size());
    if (named != 0 && named != p.size() && (p.shape.empty() || named != p.shape.front()))
      found.add(where, fmt::format("part '{}' has {} row names for {} values and a first axis of {}", p.name, named,
                                   p.size(), p.shape.empty() ? 0 : p.shape.front()));
  }
}

void check_items(Findings& found, const StageInput& input, const Collected& out, const std::string& where) {
  for (std::size_t k = 1; k < out.keys.size(); ++k)
    if (out.keys[k] <= out.keys[k - 1])
      return found.add(where, fmt::format("keys do not rise: {} after {}", out.keys[k], out.keys[k - 1]));
  for (auto key : out.keys)
    if (input.format.axis == Axis::item && !std::binary_search(input.keys.begin(), input.keys.end(), key))
      return found.add(where, fmt::format("key {} is no key of the input", key));
}

/// must: the format has to be refused; else it may be taken, but refused only in the right way.
void check_refusal(Findings& found, const StageInfo& info, const Sample& sample, StreamFormat format, bool must,
                   const std::string& what) {
  auto stage = make(info, sample);
  Context context = named_context();
  format.max_frames = 8;
  try {
    stage->prepare(format, context);
    if (must) found.add("", what + " is not refused");
  } catch (const ConfigError& e) {
    if (std::string(e.what()).find(context.node) == std::string::npos)
      found.add("", fmt::format("{} is refused without naming the node: {}", what, e.what()));
  } catch (const std::exception& e) {
    found.add("", fmt::format("{} is refused by something else than a ConfigError: {}", what, e.what()));
  }
}
}  // namespace

ContractResult check_delivery(const StageInfo& info, const Sample& sample) {
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      for (const Partition& p :
           {Partition{}, Partition{.block = 1}, Partition{.block = 37}, Partition{.block = 64, .random = 5}}) {
        const std::string where =
            fmt::format("{}, blocks of at most {}", name_of(scalar), p.block ? p.block : input.frames.cols());
        const Layout layout{.input_gap = 2, .output_gap = 2};
        Run run(info, sample, input, p, layout);
        const Collected& out = run.all();
        check_format(found, input.format, out.format, where);
        for (auto& b : run.driver->breaches()) found.add(where, b);
        check_items(found, input, out, where);
        for (auto& e : out.events)
          if (!std::isfinite(e.onset_s) || e.row < -1 || e.row >= out.rows())
            found.add(where, fmt::format("an event at {} s about row {} of {}", e.onset_s, e.row, out.rows()));

        // prepared again, for another block size in between, it is as new
        StageDriver other(*run.stage, input, {.block = 5}, {}, named_context());
        other.run(0, std::min<Index>(10, input.frames.cols()));
        StageDriver again(*run.stage, input, p, layout, named_context());
        again.run();
        again.flush();
        found.unless_same(where + ", prepared again", out, again.output());
        if (!(again.output().format == out.format)) found.add(where, "prepared again, the output's format differs");
      }
    });

  found.attempt("", [&] {
    const StreamFormat good = sample.format;
    StreamFormat f = good;
    f.parts.front().shape.front() = 0;
    f.parts.front().rows.clear();
    check_refusal(found, info, sample, f, true, "an input without rows");
    f = good;
    f.parts.clear();
    check_refusal(found, info, sample, f, true, "an input without parts");
    if (good.axis == Axis::time)
      for (double rate : {0.0, -1.0, kNaN}) {
        f = good;
        f.rate_hz = rate;
        check_refusal(found, info, sample, f, true, fmt::format("a rate of {} Hz", rate));
      }
    f = good;
    f.axis = good.axis == Axis::time ? Axis::item : Axis::time;
    f.rate_hz = good.axis == Axis::time ? 0 : 100;
    check_refusal(found, info, sample, f, false, "the other axis");
    if (info.trained) {
      f = good;
      ++f.parts.front().shape.front();
      f.parts.front().rows.clear();
      check_refusal(found, info, sample, f, true, "one row more than the model was fitted on");
    }
  });
  return found.done();
}

ContractResult check_causality(const StageInfo& info, const Sample& sample) {
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      Run single(info, sample, input, {.block = 1});
      const Traits traits = single.stage->traits();
      if (!std::isfinite(traits.latency_s) || traits.latency_s < 0)
        found.add(name_of(scalar), fmt::format("a latency of {} s", traits.latency_s));
      if (!traits.causal) return;
      const Collected& out = single.all();

      // what came out before frame m does not change when the input from m on does
      const Index n = input.frames.cols();
      const Collected whole = outcome(info, sample, input);
      for (Index m : {n / 3, 2 * n / 3}) {
        StageInput changed = input;
        changed.frames.rightCols(n - m) = changed.frames.rightCols(n - m).rowwise().reverse().eval();
        const Collected other = outcome(info, sample, changed);
        const auto upto =
            std::upper_bound(out.given.begin(), out.given.begin() + out.before_flush, m) - out.given.begin();
        for (Index k = 0; k < std::min<Index>({upto, whole.frames(), other.frames()}); ++k)
          if (!std::equal(whole.frame(k), whole.frame(k) + whole.rows(), other.frame(k),
                          [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); })) {
            found.add(name_of(scalar), fmt::format("frame {} changes with input that comes later", k));
            break;
          }
      }

      if (input.format.axis != Axis::time || out.format.axis != Axis::time) return;
      const double in_period = 1 / input.format.rate_hz, out_period = 1 / out.format.rate_hz;
      const bool same_rate = std::abs(in_period - out_period) < 1e-9 * in_period;
      // where the rate changes, several frames share one time, so the clock is known to one frame only
      const double tolerance = same_rate ? 1e-3 * in_period : std::max(in_period, out_period) * (1 + 1e-6);
      for (Index k = 0; k < out.before_flush; ++k) {
        const double came = input.format.time_of(out.given[static_cast<std::size_t>(k)] - 1),
                     stands = out.format.time_of(k);
        if (std::abs(came - stands - traits.latency_s) > tolerance) {
          found.add(name_of(scalar),
                    fmt::format("frame {} stands for {:.6f} s and comes at {:.6f} s: the declared latency is {:.6f} s",
                                k, stands, came, traits.latency_s));
          break;
        }
      }
    });
  return found.done();
}

namespace {
void check_per_frame(Findings& found, const StageInfo& info, const Sample& sample, const StageInput& input,
                     const std::string& where) {
  std::vector<Index> order(static_cast<std::size_t>(input.frames.cols()));
  std::iota(order.begin(), order.end(), Index{0});
  Run straight(info, sample, input, {.block = 1}), mixed(info, sample, input, {.block = 1});
  std::vector<Index> count(order.size()), first(order.size());
  for (Index k : order) count[static_cast<std::size_t>(k)] = straight.driver->push(k, 1);
  std::partial_sum(count.begin(), count.end(), first.begin());
  std::shuffle(order.begin(), order.end(), std::mt19937_64(3));
  for (Index k : order) {
    const Index at = mixed.driver->output().frames();
    const Index n = mixed.driver->push(k, 1), expected = count[static_cast<std::size_t>(k)];
    if (n != expected)
      return found.add(where, fmt::format("frame {} gives {} frames, out of order {}", k, expected, n));
    const Collected &a = straight.driver->output(), &b = mixed.driver->output();
    const Index begin = first[static_cast<std::size_t>(k)] - expected;
    for (Index i = 0; i < n; ++i)
      if (!std::equal(a.frame(begin + i), a.frame(begin + i) + a.rows(), b.frame(at + i),
                      [](double u, double v) { return u == v || (std::isnan(u) && std::isnan(v)); }))
        return found.add(where, fmt::format("frame {} is another when the frames come in another order", k));
  }
  straight.driver->flush();
  if (straight.driver->output().before_flush != straight.driver->output().frames())
    found.add(where, "holds frames back to the end");
}

void check_per_row(Findings& found, const StageInfo& info, const Sample& sample, const StageInput& input,
                   const std::string& where) {
  const Index rows = input.frames.rows();
  const Collected all = outcome(info, sample, input);
  if (all.rows() != rows)
    return found.add(where, fmt::format("{} rows become {}: tiles of rows cannot be put together", rows, all.rows()));
  std::vector<Index> kept;
  for (Index r = 0; r < rows; ++r)
    if (r % 2 == 0) kept.push_back(r);
  auto compare = [&](const Collected& other, bool packed, const char* how) {
    if (other.frames() != all.frames())
      return found.add(where, fmt::format("{}: {} frames and {}", how, all.frames(), other.frames()));
    for (Index k = 0; k < all.frames(); ++k)
      for (std::size_t i = 0; i < kept.size(); ++i) {
        const double a = all.frame(k)[kept[i]], b = other.frame(k)[packed ? static_cast<Index>(i) : kept[i]];
        if (a != b && !(std::isnan(a) && std::isnan(b)))
          return found.add(where, fmt::format("{}: frame {} row {} is {} and {}", how, k, kept[i], a, b));
      }
  };

  StageInput changed = input;
  for (Index r = 1; r < rows; r += 2) changed.frames.row(r) = changed.frames.row(r).reverse().eval() * 2;
  compare(outcome(info, sample, changed), false, "other rows changed");
  for (Index r = 1; r < rows; r += 2) changed.frames.row(r).setConstant(kNaN);
  compare(outcome(info, sample, changed), false, "other rows missing");

  // a trained stage knows its rows; one that is not can be made for some of them
  if (info.trained || input.format.parts.size() != 1 || input.format.parts.front().shape.size() != 1) return;
  StageInput fewer = input;
  Part& part = fewer.format.parts.front();
  part.shape = {static_cast<Index>(kept.size())};
  part.rows.clear();
  fewer.frames.resize(static_cast<Index>(kept.size()), input.frames.cols());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    fewer.frames.row(static_cast<Index>(i)) = input.frames.row(kept[i]);
    if (!input.format.parts.front().rows.empty())
      part.rows.push_back(input.format.parts.front().rows[static_cast<std::size_t>(kept[i])]);
  }
  compare(outcome(info, sample, fewer), true, "some rows alone");
}
}  // namespace

ContractResult check_independence(const StageInfo& info, const Sample& sample) {
  Findings found;
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const Traits traits = prepared_traits(info, sample);
      const StageInput input = input_of(sample, scalar);
      if (traits.per_frame) check_per_frame(found, info, sample, input, fmt::format("{}, per_frame", name_of(scalar)));
      if (traits.per_row) check_per_row(found, info, sample, input, fmt::format("{}, per_row", name_of(scalar)));
    });
  return found.done();
}

namespace {
constexpr const char* kBoundary = "contract boundary";

/// The sample's stage alone in a graph, with `reset`; none when a graph refuses that.
std::unique_ptr<Graph> resetting_graph(const Registry& registry, const StageInfo& info, const Sample& sample,
                                       const StageInput& input, Index block) {
  NodeSpec node;
  node.name = "contract_node";
  node.use = info.name;
  node.params = sample.params;
  node.model = sample.model;
  auto make = [&] {
    return std::make_unique<Graph>(registry, std::vector<InputSpec>{{"in", input.format}}, std::vector<NodeSpec>{node},
                                   input.format.scalar, block, Context{});
  };
  make();  // what is refused without a reset is another law's matter
  node.reset = kBoundary;
  try {
    return make();
  } catch (const ConfigError&) {
    return nullptr;
  }
}

/// Frames [first, last) in blocks that do not cross a multiple of `block`; random: shorter ones.
void push_blocks(Graph& graph, const StageInput& input, const std::vector<Event>& events, Index first, Index last,
                 Index block, std::uint64_t random) {
  std::mt19937_64 draw(random);
  while (first < last) {
    Index n = std::min(block - first % block, last - first);
    if (random) n = 1 + static_cast<Index>(draw() % static_cast<std::uint64_t>(n));
    Block b;
    b.x = ConstFrames(input.frames.data() + first * input.frames.rows(), Scalar::f64, input.frames.rows(), n,
                      input.frames.rows());
    b.first_frame = first;
    const double from = first ? input.format.time_of(first) : -HUGE_VAL, until = input.format.time_of(first + n);
    std::vector<Event> due;
    for (auto& e : events)
      if (e.onset_s >= from && e.onset_s < until) due.push_back(e);
    b.events = due;
    graph.push(0, b);
    first += n;
  }
}
}  // namespace

ContractResult check_anew(const StageInfo& info, const Sample& sample) {
  Findings found;
  Registry registry;
  try {
    registry.add(info);
  } catch (const Error&) {
    return found.done();  // an incomplete row is another law's matter
  }
  for (Scalar scalar : kScalars)
    found.attempt(name_of(scalar), [&] {
      const StageInput input = input_of(sample, scalar);
      const Index n = input.frames.cols();
      if (n < 12 || input.format.axis != Axis::time || !resetting_graph(registry, info, sample, input, n)) return;
      // a graph trusts what prepare() promises: without that it would be written over
      Run guarded(info, sample, input);
      if (guarded.all().format.scalar != scalar || !guarded.driver->breaches().empty()) return;
      // on a frame, between two frames, and two for one frame
      const std::vector<std::pair<double, Index>> places{{static_cast<double>(n / 3), n / 3},
                                                         {static_cast<double>(n / 2) + 0.4, n / 2 + 1},
                                                         {static_cast<double>(2 * n / 3) + 0.2, 2 * n / 3 + 1},
                                                         {static_cast<double>(2 * n / 3) + 0.6, 2 * n / 3 + 1}};
      std::vector<Event> events = input.events;
      for (auto& [at, unused] : places)
        events.push_back({.onset_s = input.format.start_s + at / input.format.rate_hz, .label = Label::of(kBoundary)});
      std::stable_sort(events.begin(), events.end(), [](auto& a, auto& b) { return a.onset_s < b.onset_s; });

      Collected expected;  // each piece by a new stage
      std::vector<Index> borders{0};
      for (auto& [unused, frame] : places)
        if (frame > borders.back()) borders.push_back(frame);
      borders.push_back(n);
      for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
        StageInput piece = input;
        piece.frames = input.frames.middleCols(borders[i], borders[i + 1] - borders[i]);
        piece.format.start_s = input.format.time_of(borders[i]);
        std::erase_if(piece.events, [&](auto& e) { return i > 0 && e.onset_s < piece.format.start_s; });
        const Collected y = outcome(info, sample, piece, {.block = 37});
        expected.format = y.format;
        expected.values.insert(expected.values.end(), y.values.begin(), y.values.end());
        expected.given.insert(expected.given.end(), y.given.begin(), y.given.end());
      }
      auto compare = [&](const std::string& where, Index block, std::uint64_t random, Index saved_at) {
        Collected got;
        got.format = expected.format;
        const SinkFn sink = [&](const Block& b) {
          const Eigen::MatrixXd y = to_matrix(b.x);
          got.values.insert(got.values.end(), y.data(), y.data() + y.size());
          got.given.insert(got.given.end(), static_cast<std::size_t>(b.x.frames), 0);
        };
        auto graph = resetting_graph(registry, info, sample, input, block);
        graph->on_output(graph->index_of("contract_node"), sink);
        push_blocks(*graph, input, events, 0, saved_at, block, random);
        if (saved_at < n) {
          const auto state = graph->save_state();
          graph = resetting_graph(registry, info, sample, input, block);
          graph->on_output(graph->index_of("contract_node"), sink);
          graph->restore_state(state);
          push_blocks(*graph, input, events, saved_at, n, block, random);
        }
        found.unless_same(fmt::format("{}, anew at events, {}", name_of(scalar), where), expected, got);
      };
      compare("one block", n, 0, n);
      compare("blocks of 1", 1, 0, n);
      compare("blocks of 37", 37, 0, n);
      compare("random blocks", 64, 1, n);
      compare("saved between an event and its frame", 1, 0, n / 2 + 1);
    });
  return found.done();
}

namespace {
/// Values that the declaration forbids.
std::vector<std::pair<std::string, Value>> forbidden(const ParamInfo& p) {
  std::vector<std::pair<std::string, Value>> all;
  const bool integer = p.type == "integer" || p.type == "integers";
  if (integer || p.type == "number" || p.type == "numbers") {
    auto number = [&](double d) { return integer ? Value(static_cast<std::int64_t>(d)) : Value(d); };
    const auto beyond = [&](double edge, double sign) { return edge + sign * std::max(1.0, 1e-6 * std::abs(edge)); };
    if (std::isfinite(p.min) && std::abs(p.min) < 1e15)
      all.emplace_back("a value below its range", number(beyond(p.min, -1)));
    if (std::isfinite(p.max) && std::abs(p.max) < 1e15)
      all.emplace_back("a value above its range", number(beyond(p.max, 1)));
    all.emplace_back("text", Value("a word"));
  } else if (p.type == "boolean") {
    all.emplace_back("text", Value("a word"));
  } else {
    all.emplace_back("a number", Value(1.5));
    if (!p.choices.empty()) all.emplace_back("none of its choices", Value(p.choices.front() + "_not"));
  }
  return all;
}

bool default_in_range(const ParamInfo& p) {
  auto fits = [&](const Value& v) {
    if (v.is_number()) return v.as_number() >= p.min && v.as_number() <= p.max;
    if (v.is_string() && !p.choices.empty())
      return std::find(p.choices.begin(), p.choices.end(), v.as_string()) != p.choices.end();
    return true;
  };
  if (p.fallback.is_array()) return std::all_of(p.fallback.as_array().begin(), p.fallback.as_array().end(), fits);
  return fits(p.fallback);
}

bool one_line(const std::string& text) { return !text.empty() && text.find('\n') == std::string::npos; }

void check_param(Findings& found, const StageInfo& info, const Sample& sample, const ParamInfo& p) {
  const auto& reserved = reserved_stage_keys();
  const std::string where = info.name + "." + p.key;
  if (p.key.empty() || std::find(reserved.begin(), reserved.end(), p.key) != reserved.end() ||
      p.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos)
    found.add(where, "not a free key in snake_case");
  if (!one_line(p.doc)) found.add(where, "not documented in one line");
  if (!default_in_range(p)) found.add(where, fmt::format("the default {} is outside its range", to_json(p.fallback)));
  auto with = [&](const std::string& key, const Value& v) {
    Value params = sample.params;
    params[key] = v;
    return info.make(params, sample.model.get(), "contract_node");
  };
  found.attempt(where + ", its default", [&] { with(p.key, p.fallback); });
  auto refused = [&](const std::string& key, const Value& v, const std::string& what, const std::string& expected) {
    try {
      with(key, v);
      found.add(where, what + " is taken");
    } catch (const ConfigError& e) {
      const std::string message = e.what();
      for (auto& part : {std::string("contract_node"), expected})
        if (message.find(part) == std::string::npos)
          found.add(where, fmt::format("{} is refused without '{}': {}", what, part, message));
    } catch (const std::exception& e) {
      found.add(where, fmt::format("{} is refused by something else than a ConfigError: {}", what, e.what()));
    }
  };
  for (auto& [what, v] : forbidden(p)) refused(p.key, v, what, p.key);
  std::string misspelt = p.key + "x";
  refused(misspelt, p.fallback, "the unknown key " + misspelt, "did you mean");
}
}  // namespace

ContractResult check_declaration(const StageInfo& info, const Sample& sample) {
  Findings found;
  found.attempt(info.name, [&] {
    if (!one_line(info.doc)) found.add(info.name, "not documented in one line");
    if (info.folder.empty()) found.add(info.name, "no folder");
    if (info.version < 1) found.add(info.name, "no version");
    if (sample.frames < 1 || sample.format.size() < 1) found.add(info.name, "an empty sample");
    if (info.needs_target && !info.trained) found.add(info.name, "needs a target but is not trained");
    if (info.trained) {
      if (!info.make_fitter) found.add(info.name, "trained, but nothing fits it");
      else info.make_fitter(sample.params, info.name);
      if (!sample.model) found.add(info.name, "trained, but the sample has no model");
      try {
        info.make(sample.params, nullptr, info.name);
        found.add(info.name, "is made without its model");
      } catch (const ConfigError&) {
      }
    }
    const Traits traits = prepared_traits(info, sample);
    if (!info.causal_twin.empty() && info.causal_twin == info.name && !traits.causal)
      found.add(info.name, "is its own causal twin but not causal");
    std::set<std::string> keys;
    for (auto& p : info.params) {
      if (!keys.insert(p.key).second) found.add(info.name, fmt::format("two parameters are called '{}'", p.key));
      check_param(found, info, sample, p);
    }
    if (info.params.empty()) {
      bool refused = false;
      try {
        info.make(Value::object({{"bogus", 1}}), sample.model.get(), info.name);
      } catch (const ConfigError&) {
        refused = true;
      }
      if (!refused) found.add(info.name, "takes a key though it has no parameter");
    }
  });
  return found.done();
}

std::span<const Law> contract_laws() {
  static constexpr Law laws[] = {
      {"partition", check_partition},       {"state", check_state},       {"missing", check_missing},
      {"real_time", check_real_time},       {"delivery", check_delivery}, {"causality", check_causality},
      {"independence", check_independence}, {"anew", check_anew},         {"declaration", check_declaration}};
  return laws;
}

std::string model_difference(const Model& a, const Model& b) {
  for (auto& [name, t] : a.tensors()) {
    const auto other = b.tensors().find(name);
    if (other == b.tensors().end()) return fmt::format("array '{}' is in the first model only", name);
    if (t.type != other->second.type || t.shape != other->second.shape)
      return fmt::format("array '{}' has another type or shape", name);
    if (t.data != other->second.data) return fmt::format("array '{}' has other values", name);
  }
  for (auto& [name, t] : b.tensors())
    if (!a.tensors().contains(name)) return fmt::format("array '{}' is in the second model only", name);
  if (a.meta == b.meta) return "";
  if (a.meta.is_table() && b.meta.is_table())
    for (auto& [key, v] : a.meta.as_table())
      if (const Value* other = b.meta.find(key); !other || !(*other == v)) return fmt::format("meta.{} differs", key);
  return "meta differs";
}

}  // namespace percept::testing
