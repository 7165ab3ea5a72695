#include "evaluation/run.h"

#include <fmt/format.h>

#include "cli/command.h"
#include "data/loaders.h"
#include "data/prior.h"
#include "evaluation/describe.h"
#include "evaluation/prior.h"
#include "evaluation/provenance.h"
#include "evaluation/search.h"
#include "percept/registry.h"

namespace percept::cli {

Command run_command() {
  return {
      "run", "Run a pipeline file: split, fit, decode, score, audit, report",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        const auto o = add_pipeline(app, global, "Folder for the results (default: [output] folder, else runs/NAME)");
        const auto dry_run = std::make_shared<bool>(false);
        app.add_flag("--dry-run", *dry_run,
                     "Print the resolved graph with shapes, rates, latency and memory; read no samples, fetch nothing");
        app.footer(
            "The folder holds result.json, report.html, predictions, models and provenance.json; it appears when the\n"
            "run is done and replaces an older one as a whole. A run that was killed left what it had worked out in\n"
            "FOLDER.work, and the next one goes on from there. percept rerun FOLDER makes the same bytes again.");
        return [o, dry_run, &global]() -> Value {
          const auto& registry = builtin_registry();
          auto request = read_request(*o, global);
          if (*dry_run) {
            const auto& p = request.pipeline;
            request.recording = data::outline_input(p.input, p.file.parent_path(), p.file.string() + ": input");
            Value notes = Value::array();
            if (request.recording.streams.empty())
              notes.push_back(
                  fmt::format("{0} is neither in a mirror nor in the cache, and a dry run fetches nothing, so "
                              "that shapes and rates are not known: percept data fetch {0}",
                              request.recording.name));
            if (p.search) {
              const auto candidates = evaluation::candidates_of(*p.search, p.seed).size();
              notes.push_back(fmt::format("search: {} candidates ({}), each on up to {} inner folds", candidates,
                                          p.search->method, p.search->inner_folds));
            }
            Value priors = Value::array();
            if (!p.priors.empty())
              priors = evaluation::to_value(registry, p, data::outline_priors(p.priors, p.file.parent_path()));
            const Value graph = evaluation::describe_graph(registry, request.pipeline, request.recording);
            for (auto& r : graph.as_array())
              if (const auto reset = r.get("reset", ""); !reset.empty())
                notes.push_back(fmt::format("{} starts anew at each event '{}'", r.at("name").as_string(), reset));
            if (!global.json) {
              fmt::print("{:<16} {:<20} {:<24} {:>10} {:>11} {:>8}  {}\n", "node", "stage", "frame", "rate [Hz]",
                         "latency [s]", "memory", "fit");
              auto text = [](const Value& v) {
                return v.is_string() ? v.as_string() : fmt::format("{:.6g}", v.as_number());
              };
              for (auto& r : graph.as_array())
                fmt::print("{:<16} {:<20} {:<24} {:>10} {:>11} {:>8}  {}\n", r.at("name").as_string(),
                           r.at("use").as_string(), text(r.at("shape")), text(r.at("rate_hz")), text(r.at("latency_s")),
                           text(r.at("memory_frames")), text(r.at("fit")));
            }
            if (!global.json && priors.size()) {
              fmt::print("\n{:<16} {:<20} {:<24} {}\n", "prior", "stage", "images", "from");
              for (auto& v : priors.as_array()) {
                std::string from;
                for (auto& s : v.at("sources").as_array())
                  from += (from.empty() ? "" : ", ") + s.at("name").as_string();
                const auto& n = v.at("images");
                fmt::print("{:<16} {:<20} {:<24} {}{}\n", v.at("name").as_string(), v.at("use").as_string(),
                           n.is_string() ? n.as_string() : fmt::format("{}", n.as_integer()), from,
                           v.contains("labels") ? ", labels " + to_json(v.at("labels")) : "");
              }
            }
            if (!global.json)
              for (auto& n : notes.as_array()) fmt::print("note: {}\n", n.as_string());
            Value result = Value::object({{"graph", graph}, {"notes", notes}});
            if (priors.size()) result["priors"] = priors;
            return result;
          }
          load_recording(request);
          Counters counters;
          request.options.counters = &counters;
          set_output(request, output_folder(request.pipeline, o->output), *o);
          const auto outcome = resumable(request, [&] { return evaluation::run_pipeline(registry, request); });
          finish_progress();
          Value result = outcome.result;
          result["seconds"] = outcome.seconds;
          result["peak_rss_bytes"] = evaluation::peak_rss_bytes();
          result["output"] = request.output.string();
          if (!global.json) {
            for (auto& w : request.recording.warnings()) fmt::print("note: {}\n", w);
            fmt::print("{}", scores_text(result));
            const auto report = request.output / "report.html";
            fmt::print(
                "{:.1f} s, {} MB; {}\n", outcome.seconds, evaluation::peak_rss_bytes() >> 20,
                std::filesystem::exists(report) ? "report: " + report.string() : "output: " + request.output.string());
          }
          return result;
        };
      },
      true};
}

}  // namespace percept::cli
