#include <fmt/format.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <thread>

#include "cli/command.h"
#include "cli/live_calibration.h"
#include "cli/live_session.h"
#include "core/files.h"
#include "data/loaders.h"
#include "evaluation/experiment.h"
#include "evaluation/provenance.h"
#include "percept/registry.h"
#include "realtime/live_settings.h"
#include "realtime/outlets.h"
#include "realtime/simulator_source.h"
#include "realtime/sources.h"

namespace percept::cli {
namespace fs = std::filesystem;

namespace {
std::atomic<int> emergency_signal{0};  // 1: stop, 2: release

void on_emergency(int signal) { emergency_signal.store(signal == SIGUSR1 ? 1 : 2); }

/// Single keys from a terminal, without Enter.
class Keyboard {
 public:
  Keyboard() {
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    on_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  ~Keyboard() {
    if (on_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Keyboard(const Keyboard&) = delete;
  Keyboard& operator=(const Keyboard&) = delete;
  bool on() const { return on_; }
  /// The next key, waiting for up to 20 ms; 0: none.
  char key() const {
    pollfd fd{STDIN_FILENO, POLLIN, 0};
    if (!on_ || ::poll(&fd, 1, 20) <= 0) {
      if (!on_) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return 0;
    }
    char c = 0;
    return ::read(STDIN_FILENO, &c, 1) == 1 ? c : '\0';
  }

 private:
  termios before_{};
  bool on_ = false;
};

struct LiveArguments {
  PipelineOptions pipeline;
  std::vector<std::string> sources, outputs;
  std::string models, record;
  double duration_s = 0;
  bool check = false, page = false;
  // percept replay
  std::string file, stream;
  double speed = 1;
  std::int64_t packet = 1;
};

void add_live_options(CLI::App& app, Global& global, LiveArguments& a) {
  add_pipeline_file(app, a.pipeline);
  app.add_option("--output", a.outputs, "Where decoded states go: KIND:KEY=VALUE,... (udp, stdout, redis, lsl)")
      ->type_name("OUTLET")
      ->allow_extra_args(false);
  app.add_option("--models", a.models, "Folder of percept fit (default: models/NAME)")->type_name("DIR");
  app.add_option("--record", a.record, "New folder for everything that comes in and goes out")->type_name("DIR");
  app.add_flag("--page", a.page,
               "Serve a page for this machine's browser: state, signal, channels, latencies, commands");
  app.add_option("--duration", a.duration_s, "Stop after so many seconds (default: when the source ends, or Ctrl-C)")
      ->check(CLI::Range(0.0, 1e9));
  add_threads(app, global);
  add_json(app, global);
}

std::string milliseconds(const Value& times, const char* key) {
  return fmt::format("{:.3f} ms", 1e3 * times.at(key).as_number());
}

void print_task(const Value& t) {
  fmt::print("  {}: {} trials: {} acquired, {} late, {} wrong, {} aborted; {} measured, without help\n",
             t.at("use").as_string(), t.at("trials").as_integer(), t.at("acquired").as_integer(),
             t.at("late").as_integer(), t.at("wrong").as_integer(), t.at("aborted").as_integer(),
             t.at("measured").as_integer());
  const auto figure = [&](const char* key, const char* words, double scale, const char* unit) {
    const Value* f = t.find(key);
    if (!f || f->at("value").is_null()) return;
    fmt::print("    {} {:.4g}{}", words, scale * f->at("value").as_number(), unit);
    if (!f->at("low").is_null())
      fmt::print(" [{:.4g}, {:.4g}]", scale * f->at("low").as_number(), scale * f->at("high").as_number());
    fmt::print(" (n {})\n", f->at("n").as_integer());
  };
  figure("success", "success", 100, " %");
  figure("time_to_target_s", "time to target", 1, " s");
  figure("path_efficiency", "path efficiency", 1, "");
  figure("bit_rate", "bit rate", 1, " bit/s");
  figure("throughput", "throughput", 1, " bit/s");
  if (const Value* c = t.find("calibration"))
    fmt::print("    fitted anew {} times, {} fits failed{}\n", c->at("fits").as_integer(), c->at("failed").as_integer(),
               c->contains("trouble") ? " (" + c->at("trouble").as_string() + ")" : "");
}

void print_report(const Value& r) {
  fmt::print("{} states, {:.3f} s; latency p50 {}, p99 {}, p99.9 {}, max {}; {} later than the deadline\n",
             r.at("decoded_frames").as_integer(), r.at("time_s").as_number(), milliseconds(r.at("latency"), "p50_s"),
             milliseconds(r.at("latency"), "p99_s"), milliseconds(r.at("latency"), "p99.9_s"),
             milliseconds(r.at("latency"), "max_s"), r.at("deadline_misses").as_integer());
  const auto stage = [](const std::string& name, const Value& times) {
    if (times.at("count").as_integer() > 0)
      fmt::print("  {:<24} p50 {}, p99 {}, p99.9 {}, max {}\n", name, milliseconds(times, "p50_s"),
                 milliseconds(times, "p99_s"), milliseconds(times, "p99.9_s"), milliseconds(times, "max_s"));
  };
  stage("until it is taken", r.at("waited"));
  if (const Value* nodes = r.find("nodes"))
    for (auto& [name, times] : nodes->as_table()) stage(name, times);
  if (const Value* clicks = r.find("clicks"))
    fmt::print("  {} clicks sent, {} kept back while the output was held\n", clicks->as_integer(),
               r.at("held_clicks").as_integer());
  for (auto& [name, v] : r.at("inputs").as_table()) {
    fmt::print("  {}: {}\n    {} packets, {} frames", name, v.at("device").as_string(), v.at("packets").as_integer(),
               v.at("frames").as_integer());
    for (const char* key : {"missing_frames", "gaps", "reordered_packets", "duplicate_packets", "late_packets",
                            "refused_packets", "restarts", "malformed", "foreign", "lost_in_system", "reconnects"})
      if (const auto n = v.at(key).as_integer()) {
        std::string words = key;
        std::replace(words.begin(), words.end(), '_', ' ');
        fmt::print(", {} {}", n, words);
      }
    fmt::print("\n");
    if (const Value* clock = v.find("clock"))
      fmt::print("    clock: offset {:.6f} s, drift {:.1f} ppm, residual {:.1f} us, {} jumps{}\n",
                 clock->at("offset_s").as_number(), 1e6 * clock->at("drift").as_number(),
                 1e6 * clock->at("residual_s").as_number(), clock->at("jumps").as_integer(),
                 clock->at("holding").as_bool() ? ", held: no new sample" : "");
    for (auto& [row, state] : v.at("bad_channels").as_table())
      fmt::print("    channel {} is masked: {}\n", row, state.as_string());
  }
  if (const Value* task = r.find("task")) print_task(*task);
  if (const auto held = r.at("held_frames").as_integer())
    fmt::print("  output held for {} frames ({} times)\n", held, r.at("holds").as_integer());
  if (const auto limited = r.at("limited_frames").as_integer()) fmt::print("  {} frames were at a limit\n", limited);
  if (const Value* outputs = r.find("outputs"))
    for (auto& o : outputs->as_array())
      fmt::print("  {}: {} states sent, {} lost{}\n", o.at("device").as_string(), o.at("sent").as_integer(),
                 o.at("lost").as_integer(), o.contains("trouble") ? " (" + o.at("trouble").as_string() + ")" : "");
  if (const Value* rec = r.find("recorder"))
    fmt::print("  recorded {} records, {} bytes, {} lost; at most {:.0f} ms between two syncs\n",
               rec->at("records").as_integer(), rec->at("bytes").as_integer(), rec->at("lost_records").as_integer(),
               1e3 * rec->at("longest_sync_s").as_number());
  if (const Value* notes = r.find("notes"))
    for (auto& n : notes->as_array()) fmt::print("note: {}\n", n.as_string());
}

/// How well this machine keeps time, and whether that is enough for a device of this rate.
Value check_machine(const LiveSettings& settings, double rate_hz, bool print) {
  RealTimeParams wished = settings.real_time;
  const double period_s = rate_hz > 0 ? std::clamp(1 / rate_hz, 0.0005, 0.1) : 0.001;
  const Jitter j = measure_jitter(period_s, 3, wished);
  std::vector<std::string> notes;
  std::thread([&] { notes = enter_real_time(wished); }).join();
  const bool fit = j.p99_s <= settings.loop.deadline_s / 2 && j.max_s <= settings.loop.deadline_s;
  Value v = Value::object({{"period_s", period_s},
                           {"wakeups", j.wakeups},
                           {"late_p50_s", j.median_s},
                           {"late_p99_s", j.p99_s},
                           {"late_p99.9_s", j.p999_s},
                           {"late_max_s", j.max_s},
                           {"clock_step_s", j.clock_step_s},
                           {"deadline_s", settings.loop.deadline_s},
                           {"fit", fit}});
  v["notes"] = notes;
  if (!print) return v;
  fmt::print("woken every {:.3f} ms for 3 s: late by p50 {:.1f} us, p99 {:.1f} us, p99.9 {:.1f} us, max {:.1f} us\n",
             1e3 * period_s, 1e6 * j.median_s, 1e6 * j.p99_s, 1e6 * j.p999_s, 1e6 * j.max_s);
  fmt::print("the clock's step is {:.0f} ns\n", 1e9 * j.clock_step_s);
  for (auto& n : notes) fmt::print("note: {}\n", n);
  if (fit)
    fmt::print("fit: this machine alone takes no more than the deadline of {:.1f} ms\n",
               1e3 * settings.loop.deadline_s);
  else
    fmt::print("not fit for a deadline of {:.1f} ms: something else holds this machine's cores\n",
               1e3 * settings.loop.deadline_s);
  return v;
}

/// The stages with their models, from the pipeline's `model` keys or the folder of percept fit.
std::vector<NodeSpec> fitted_nodes(const Pipeline& pipeline, const LiveSettings& settings, const fs::path& models,
                                   std::vector<std::string>& inputs) {
  const auto& registry = builtin_registry();
  auto nodes = live_nodes(pipeline, settings.node, settings.click, inputs);
  for (auto& n : nodes) {
    if (!registry.at(n.use, n.where).trained) continue;
    StageSpec stage =
        *std::find_if(pipeline.stages.begin(), pipeline.stages.end(), [&](auto& s) { return s.node.name == n.name; });
    if (stage.model.empty() || pipeline.prior(stage.model)) {
      stage.model = (models / n.name).string();
      if (!fs::exists(stage.model))
        throw DataError(stage.model, "",
                        fmt::format("the model of '{}': percept fit {} writes it", n.name, pipeline.file.string()),
                        "none");
      stage.model = fs::absolute(stage.model).string();
    }
    n.model = evaluation::load_model(pipeline, stage, registry, nullptr);
  }
  return nodes;
}

/// What the page is told once (realtime/live_page.h).
Value page_about(const Pipeline& pipeline, const std::string& node, const std::vector<std::string>& rows,
                 const LiveRunner& runner, const std::vector<InputSpec>& inputs, const std::string& raster,
                 const ClosedLoop* task) {
  const Part& state = decoded_part(runner.format(node));
  Value units = Value::array(), in = Value::array();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string& unit = i < state.rows.size() && !state.rows[i].unit.empty() ? state.rows[i].unit : state.unit;
    units.push_back(unit == "1" ? "" : unit);
  }
  for (auto& i : inputs)
    in.push_back(
        Value::object({{"name", i.name}, {"rate_hz", i.format.rate_hz}, {"rows", Value(i.format.row_names())}}));
  Value about = Value::object({{"name", pipeline.title.empty() ? pipeline.file.stem().string() : pipeline.title},
                               {"node", node},
                               {"rows", Value(rows)},
                               {"units", units},
                               {"inputs", in}});
  if (!raster.empty()) {
    const StreamFormat& spikes = runner.format(raster);
    about["raster"] = Value::object(
        {{"name", raster}, {"rate_hz", spikes.rate_hz}, {"rows", static_cast<std::int64_t>(spikes.size())}});
  }
  if (task)
    about["task"] = Value::object({{"use", task->task().use()},
                                   {"extent", task->task().extent()},
                                   {"hold_s", task->task().trial_params().hold_s},
                                   {"dwell", task->task().trial_params().select == "dwell"},
                                   {"keys", static_cast<std::int64_t>(task->task().keys())},
                                   {"side", task->task().side()},
                                   {"calibration", task->calibration().has_value()}});
  return about;
}

/// The node whose spike counts the page shows: the first that finds spikes.
std::string raster_node(const std::vector<NodeSpec>& nodes, const LiveRunner& runner) {
  for (auto& n : nodes)
    if ((n.use == "threshold_crossings" || n.use == "level_crossings") && runner.on_push_thread(n.name)) return n.name;
  return {};
}

Value run_live(LiveArguments a, Global& global) {
  const auto& registry = builtin_registry();
  const Pipeline pipeline = read_pipeline(a.pipeline.file, registry, a.pipeline.set);
  LiveSettings settings = read_live(pipeline);
  for (auto& s : a.outputs) settings.outlets.push_back(parse_outlet(s, "--output"));
  if (!a.sources.empty()) {
    settings.sources.clear();
    for (auto& s : a.sources) settings.sources.push_back(parse_source(s, "--source"));
  }
  if (a.check && settings.sources.empty()) return check_machine(settings, 0, !global.json);
  if (settings.sources.empty())
    throw ConfigError(settings.where + ".source", "", "where the data come from, or --source KIND:KEY=VALUE");
  for (auto& o : settings.outlets)
    if (o.use == "stdout" && global.json) throw UsageError("--json and an output to stdout exclude each other");

  const fs::path models = a.models.empty() ? fs::path("models") / pipeline.file.stem() : fs::path(a.models);
  std::vector<std::string> wanted;
  auto nodes = fitted_nodes(pipeline, settings, models, wanted);

  SourceSettings given;
  given.base = pipeline.file.parent_path();
  given.stream = wanted.empty() ? "" : wanted.front();
  given.recording = [&] {
    return data::load_input(pipeline.input, pipeline.file.parent_path(), progress_bar(global),
                            pipeline.file.string() + ": input");
  };
  LiveLoop::Setup setup;
  std::vector<InputSpec> inputs;
  SimulatorSource* simulator = nullptr;
  for (auto& s : settings.sources) {
    setup.sources.push_back(make_source(s, given, settings.where + ".source"));
    const Source& source = *setup.sources.back();
    inputs.push_back({source.info().name, source.format()});
    simulator = dynamic_cast<SimulatorSource*>(setup.sources.back().get());
  }
  finish_progress();
  // one source is what the stages read, whatever it calls itself
  if (inputs.size() == 1 && wanted.size() == 1 && !wanted.front().empty()) inputs.front().name = wanted.front();
  for (auto& n : nodes)
    if (n.from.empty()) n.from = {inputs.front().name};

  LiveRunner runner(registry, inputs, nodes, settings.runner);
  const StreamFormat& decoded = runner.format(settings.node);
  const OutletSettings states{
      .rows = decoded_rows(decoded), .rate_hz = decoded.rate_hz, .clicks = !settings.click.empty()};
  for (auto& o : settings.outlets) setup.outlets.push_back(make_outlet(o, states, settings.where + ".output"));
  std::unique_ptr<ClosedLoop> task;
  if (!settings.task.is_null())
    task = std::make_unique<ClosedLoop>(ClosedLoop::Setup{.decoded = decoded,
                                                          .cursor = settings.cursor,
                                                          .task = settings.task,
                                                          .clicks = !settings.click.empty(),
                                                          .user = settings.user,
                                                          .calibration = settings.calibration,
                                                          .where = settings.where});
  if (settings.user) {
    if (!simulator || settings.sources.size() != 1)
      throw ConfigError(settings.where + ".user", "", "the simulator as the only source: it answers to this user");
    simulator->drive([&task](std::int64_t frame, double t_s) { return task->intend(frame, t_s); });
  }
  SessionFolder folder;
  std::unique_ptr<Recorder> recorder;
  if (!a.record.empty() && !a.check) {
    folder.make(a.record, nodes);
    std::vector<Recorder::StreamInfo> in;
    for (auto& i : inputs) in.push_back({i.name, i.format});
    std::vector<Recorder::StreamInfo> out{{settings.node, decoded}};
    if (task) out.push_back({"task", task->format()});
    recorder = std::make_unique<Recorder>(folder.session(), session_about(pipeline, settings.node, nodes), in, out, 1);
  }
  std::unique_ptr<Calibrator> calibrator;
  std::atomic<bool> over{false};
  if (task && settings.calibration) {
    const std::string where = settings.where + ".calibration";
    const std::string& from = settings.calibration->from.empty() ? inputs.front().name : settings.calibration->from;
    auto plan = plan_calibration(pipeline, nodes, from, where, [&over] { return over.load() || interrupted(); });
    StreamFormat target = decoded;
    target.parts = {decoded_part(decoded)};
    calibrator = std::make_unique<Calibrator>(Calibrator::Setup{.runner = &runner,
                                                                .from = plan.from,
                                                                .frames = runner.format(plan.from),
                                                                .target = target,
                                                                .target_name = plan.target,
                                                                .lag_s = plan.lag_s,
                                                                .fit = plan.fit,
                                                                .params = *settings.calibration,
                                                                .recorder = recorder.get(),
                                                                .folder = folder.session().parent_path(),
                                                                .lockstep = simulator && simulator->speed() == 0});
    runner.on_output(plan.from, [c = calibrator.get()](const Block& b) { c->frames(b); });
    task->fit_with(calibrator.get());
  }
  setup.runner = &runner;
  setup.node = settings.node;
  setup.click = settings.click;
  const std::string raster = raster_node(nodes, runner);
  setup.raster = raster;
  setup.loop = settings.loop;
  setup.real_time = settings.real_time;
  setup.guard = settings.guard;
  setup.health = settings.health;
  setup.task = task.get();
  setup.recorder = recorder.get();
  setup.duration_s = a.duration_s;
  setup.where = settings.where;
  LiveLoop loop(std::move(setup));
  if (a.check) {
    Value v = check_machine(settings, inputs.front().format.rate_hz, !global.json);
    if (!global.json)
      fmt::print("the pipeline can run live: {} at {:.6g} Hz in, {} out\n", inputs.front().format.describe(),
                 inputs.front().format.rate_hz, decoded.describe());
    return v;
  }

  std::unique_ptr<LivePage> page;
  if (a.page) {
    page = std::make_unique<LivePage>(
        loop, page_about(pipeline, settings.node, loop.rows(), runner, inputs, raster, task.get()), settings.page,
        settings.where + ".page");
    // not through the log, which may be kept: the address is the key
    fmt::print(stderr, "page: {}\n", page->url());
  }
  folder.keep();
  std::signal(SIGPIPE, SIG_IGN);  // who reads the states may go away: they are lost and counted, the session goes on
  std::signal(SIGUSR1, on_emergency);
  std::signal(SIGUSR2, on_emergency);
  std::exception_ptr failure;
  std::atomic<bool> ended{false};
  std::thread thread([&] {
    try {
      loop.run();
    } catch (...) {
      failure = std::current_exception();
    }
    ended = true;
  });
  {
    const Keyboard keyboard;
    const bool status = isatty(STDERR_FILENO) && !global.quiet;
    if (keyboard.on() && !global.quiet)
      log::info(fmt::format("space: emergency stop, and again: go on; {}q: quit",
                            !task                  ? ""
                            : settings.calibration ? "s: start or pause; r: recalibrate; "
                                                   : "s: start or pause; "));
    auto shown = std::chrono::steady_clock::now();
    while (!ended) {
      const char key = keyboard.key();
      if (key == 'q' || interrupted()) loop.stop();
      if (key == ' ') loop.emergency(!loop.emergency());
      if (key == 's' && task) loop.start_task(!task->task().started());
      if (key == 'r') loop.recalibrate();
      if (const int signal = emergency_signal.exchange(0)) loop.emergency(signal == 1);
      const auto now = std::chrono::steady_clock::now();
      if (!status || now - shown < std::chrono::milliseconds(500)) continue;
      shown = now;
      const LiveState s = loop.state();
      fmt::print(stderr, "\r\033[K{:9.2f} s  {} states  data {:.1f} ms old  p99 {:.3f} ms  {} missing  {} late{}",
                 s.time_s, s.frames, 1e3 * s.age_s, 1e3 * runner.latency().quantile_s(0.99),
                 runner.counts().missing_frames, s.deadline_misses,
                 s.hold == Hold::none ? "" : fmt::format("  HELD: {}", text_of(s.hold)));
      if (task)
        fmt::print(stderr, "  {} of {} acquired, {:.2f} bit/s{}", s.task.acquired,
                   s.task.acquired + s.task.late + s.task.wrong, s.task.bit_rate,
                   s.task.calibrating ? fmt::format(", calibrating with {:.0f} % help", 100 * s.task.assist) : "");
      std::fflush(stderr);
    }
    if (status) fmt::print(stderr, "\r\033[K");
  }
  thread.join();
  over = true;
  if (calibrator) calibrator->stop();
  if (failure) std::rethrow_exception(failure);
  Value result = loop.report();
  std::string unwritten;
  if (recorder) {
    unwritten = recorder->close(result);
    result["recording"] = a.record;
    result["recorder"] = to_value(recorder->counts());
  }
  if (!global.json) {
    print_report(result);
    if (recorder) fmt::print("recording: {} (percept rerun {} repeats it)\n", a.record, a.record);
  }
  if (!unwritten.empty()) throw DataError(folder.session().string(), "", "room for everything", unwritten);
  return result;
}
}  // namespace

Command live_command() {
  return {
      "live", "Run a fitted pipeline on a live stream: decoded states out, in time, safely",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        auto a = std::make_shared<LiveArguments>();
        add_live_options(app, global, *a);
        app.add_option("--source", a->sources,
                       "Where the data come from, instead of [live] source: KIND:KEY=VALUE,... (udp, redis, lsl, "
                       "stdin, simulator, replay)")
            ->type_name("SOURCE")
            ->allow_extra_args(false);
        app.add_flag("--check", a->check,
                     "Run nothing: open everything, measure how this machine keeps time, say whether it is fit");
        app.footer(
            "Fit first: percept fit FILE. The [live] section says where data come from and go to, and what is safe.\n"
            "Space or kill -USR1 is the emergency stop (again, or -USR2: go on); q or Ctrl-C ends the session.\n"
            "  percept live examples/flint_kalman.toml --source replay:speed=1 --output udp:port=5005");
        return [a, &global] { return run_live(*a, global); };
      },
      true};
}

Command replay_command() {
  return {"replay", "Run a fitted pipeline live on a recording, packet by packet, at any speed",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto a = std::make_shared<LiveArguments>();
            add_live_options(app, global, *a);
            app.add_option("file", a->file, "Recording to replay (default: the pipeline's [input])")->type_name("FILE");
            app.add_option("--stream", a->stream, "Which stream of it (default: the one the pipeline reads)");
            app.add_option("--speed", a->speed, "1: as it was recorded; 0: as fast as possible")
                ->check(CLI::Range(0.0, 1e6));
            app.add_option("--packet", a->packet, "Frames in a packet")->check(CLI::Range(1, 65536));
            app.footer("The states are those of percept run on the same frames, bit for bit.");
            return [a, &global] {
              DeviceSpec replay{.use = "replay", .params = Value::table()};
              LiveArguments with = *a;
              std::string source = fmt::format("replay:speed={},packet={}", with.speed, with.packet);
              if (!with.file.empty()) source += fmt::format(",file=\"{}\"", fs::absolute(with.file).string());
              if (!with.stream.empty()) source += fmt::format(",stream=\"{}\"", with.stream);
              with.sources = {source};
              return run_live(with, global);
            };
          },
          true};
}

}  // namespace percept::cli
