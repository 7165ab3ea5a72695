#include "cli/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>

#include "core/threads.h"
#include "data/fetch.h"
#include "data/loaders.h"
#include "data/prior.h"
#include "evaluation/provenance.h"
#include "percept/registry.h"

namespace percept::cli {

namespace {
std::atomic<bool> stop_asked{false};
std::atomic<bool> bar_shown{false};

void on_interrupt(int) {
  // the second Ctrl-C ends at once
  if (stop_asked.exchange(true)) std::_Exit(130);
}
}  // namespace

bool interrupted() { return stop_asked.load(); }

const std::vector<Command>& commands() {
  static const std::vector<Command> all{run_command(),        fit_command(),   report_command(), gallery_command(),
                                        rerun_command(),      live_command(),  replay_command(), export_command(),
                                        info_command(),       check_command(), stages_command(), data_command(),
                                        completion_command(), docs_command()};
  return all;
}

void add_json(CLI::App& app, Global& global) {
  app.add_flag("--json", global.json, "Print one JSON object on standard output, and nothing else there");
  app.add_flag("-q,--quiet", global.quiet, "Only errors on standard error, no progress");
}
void add_threads(CLI::App& app, Global& global) {
  app.add_option("--threads", global.threads, "Threads for everything together (default: all cores)")
      ->check(CLI::Range(1, 4096));
}

void add_pipeline_file(CLI::App& app, PipelineOptions& options) {
  app.add_option("pipeline", options.file, "Pipeline file (TOML)")->required()->type_name("FILE");
  app.add_option("--set", options.set,
                 "Change one value: NODE.key=value, run.seed=3, official.gap_s=1, live.block=64; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

std::shared_ptr<PipelineOptions> add_pipeline(CLI::App& app, Global& global, const std::string& output_doc) {
  auto o = std::make_shared<PipelineOptions>();
  add_pipeline_file(app, *o);
  app.add_option("-o,--output", o->output, output_doc)->type_name("DIR");
  app.add_flag("--fresh", o->fresh,
               "Start over: use neither what a killed run left in OUTPUT.work nor a prior fitted before");
  add_threads(app, global);
  add_json(app, global);
  return o;
}

evaluation::RunRequest read_request(const PipelineOptions& options, const Global& global) {
  evaluation::RunRequest request;
  request.pipeline = read_pipeline(options.file, builtin_registry(), options.set);
  request.options.progress = progress_bar(global);
  request.options.cancelled = interrupted;
  request.options.threads = thread_budget();
  return request;
}

void set_output(evaluation::RunRequest& request, const std::filesystem::path& output, const PipelineOptions& options) {
  request.output = output;
  request.work = std::filesystem::absolute(output).lexically_normal();
  if (!request.work.has_filename()) request.work = request.work.parent_path();
  request.work += ".work";
  if (options.fresh) evaluation::WorkCache(request.work, "").remove();
  request.prior_cache.fresh = options.fresh;
  try {
    request.prior_cache.folder = data::cache_folder() / "priors";
  } catch (const data::Unavailable&) {  // no home: priors are fitted each time
  }
}

void load_recording(evaluation::RunRequest& request) {
  const auto& file = request.pipeline.file;
  request.recording =
      data::load_input(request.pipeline.input, file.parent_path(), request.options.progress, file.string() + ": input");
  request.priors = data::load_priors(request.pipeline.priors, file.parent_path(), request.options.progress);
}

std::unique_ptr<CLI::App> make_app(Global& global, std::vector<std::function<Value()>>& actions) {
  std::signal(SIGINT, on_interrupt);
  auto app = std::make_unique<CLI::App>(
      "percept turns brain recordings into what the brain perceived or intended.\n\n"
      "A pipeline file (TOML) is a whole experiment: input, stages, split, scores. Start with\n"
      "  percept data list                      recordings percept knows by name\n"
      "  percept run examples/flint_kalman.toml  decode one of them, score it, audit the score, write a report\n"
      "  percept stages                         what a pipeline can be made of\n",
      "percept");
  app->set_version_flag("--version", "percept " + evaluation::version_text());
  app->require_subcommand(0, 1);
  app->footer("Exit codes: 0 ok, 2 wrong usage, 3 bad input, 4 the run failed, 130 interrupted.");
  app->get_formatter()->column_width(34);
  for (auto& c : commands()) {
    auto* sub = app->add_subcommand(c.name, c.doc);
    actions.push_back(c.declare(*sub, global));
  }
  return app;
}

ProgressFn progress_bar(const Global& global) {
  if (global.quiet || !isatty(STDERR_FILENO)) return {};
  struct State {
    std::mutex mutex;
    std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now(), drawn{};
  };
  auto state = std::make_shared<State>();
  return [state](double fraction, std::string_view what) {
    const auto now = std::chrono::steady_clock::now();
    std::lock_guard lock(state->mutex);
    if (now - state->begun < std::chrono::seconds(1) || now - state->drawn < std::chrono::milliseconds(100)) return;
    state->drawn = now;
    constexpr int kWidth = 30;
    const int full = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kWidth);
    fmt::print(stderr, "\r\033[K{} [{}{}] {:3.0f} %", what, std::string(static_cast<std::size_t>(full), '#'),
               std::string(static_cast<std::size_t>(kWidth - full), '.'), 100 * fraction);
    std::fflush(stderr);
    bar_shown = true;
  };
}

void finish_progress() {
  if (bar_shown.exchange(false)) fmt::print(stderr, "\r\033[K");
}

std::filesystem::path output_folder(const Pipeline& pipeline, const std::string& option) {
  if (!option.empty()) return option;
  if (!pipeline.output_folder.empty()) return pipeline.output_folder;
  return std::filesystem::path("runs") / pipeline.file.stem();
}

namespace {
void score_lines(const Value& scores, const Value* intervals, const std::string& prefix, std::string& out) {
  for (auto& [key, v] : scores.as_table()) {
    const Value* range = intervals ? intervals->find(key) : nullptr;
    if (v.is_table()) {
      score_lines(v, range, prefix + key + ".", out);
      continue;
    }
    auto one = [](const Value& x) {
      return x.is_number() ? fmt::format("{:.4f}", x.as_number()) : std::string("undefined");
    };
    auto interval = [&](const Value& r) {
      return r.is_array() && r.size() == 2 ? fmt::format(" [{}, {}]", one(r.as_array()[0]), one(r.as_array()[1]))
                                           : std::string();
    };
    std::string text;
    if (v.is_array()) {
      for (std::size_t i = 0; i < v.size(); ++i)
        text += (i ? ", " : "") + one(v.as_array()[i]) +
                (range && range->is_array() && range->size() == v.size() ? interval(range->as_array()[i]) : "");
    } else {
      text = one(v) + (range ? interval(*range) : "");
    }
    out += fmt::format("  {:<24} {}\n", prefix + key, text);
  }
}
}  // namespace

std::string scores_text(const Value& result) {
  std::string out;
  if (auto* scores = result.find("scores"); scores && scores->is_table() && scores->size()) {
    out += "scores on held-out rows, with 95 % intervals\n";
    score_lines(*scores, result.find("intervals"), "", out);
  }
  if (auto* controls = result.find("controls"); controls && controls->is_table() && controls->size()) {
    out += "the same without the brain: controls\n";
    std::string lines;
    std::function<void(const Value&, const std::string&)> walk = [&](const Value& v, const std::string& prefix) {
      for (auto& [key, item] : v.as_table()) {
        if (auto* absent = item.find("absent"))
          lines += fmt::format("  {:<24} none: {}\n", prefix + key, absent->as_string());
        else if (key == "permutation")
          lines += fmt::format("  {:<24} {:.4g}\n", prefix + "permutation p", item.at("p").as_number());
        else if (item.is_table() && item.size() && item.as_table()[0].second.is_table()) walk(item, prefix + key + ".");
        else score_lines(item, nullptr, prefix + key + ".", lines);
      }
    };
    walk(*controls, "");
    out += lines;
  }
  return out;
}

}  // namespace percept::cli
