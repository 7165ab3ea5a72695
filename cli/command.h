/// What every command shares. One file a command: it declares its options and runs.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "core/log.h"
#include "core/pipeline.h"
#include "core/registry.h"
#include "core/value.h"
#include "evaluation/run.h"

namespace percept::cli {

/// Options of the whole program, set before a command runs.
struct Global {
  bool json = false;
  bool quiet = false;
  int threads = 0;  ///< 0: all cores
};

/// A command adds itself to the program. `run` returns the object that --json prints; without --json it prints text.
struct Command {
  const char* name;
  const char* doc;  ///< one line
  std::function<std::function<Value()>(CLI::App& app, Global& global)> declare;
  bool computes = false;  ///< fits or decodes: worth a start with the fastest BLAS kernels (core/threads.h)
};

Command info_command();
Command check_command();
Command fit_command();
Command run_command();
Command report_command();
Command gallery_command();
Command stages_command();
Command data_command();
Command rerun_command();
Command live_command();
Command replay_command();
Command export_command();
Command completion_command();
Command docs_command();
/// All of them, in the order of the help page.
const std::vector<Command>& commands();
/// The program with every command declared, for help, completion and the reference page.
/// actions[i] belongs to the i-th command.
std::unique_ptr<CLI::App> make_app(Global& global, std::vector<std::function<Value()>>& actions);

/// --json, --quiet and --threads, on each command that knows them.
void add_json(CLI::App& app, Global& global);
void add_threads(CLI::App& app, Global& global);

/// What the commands share that run a pipeline file.
struct PipelineOptions {
  std::string file, output;
  std::vector<std::string> set;
  bool fresh = false;
};
/// Declares pipeline and --set.
void add_pipeline_file(CLI::App& app, PipelineOptions& options);
/// Declares pipeline, --output, --set, --fresh, --threads, --json.
std::shared_ptr<PipelineOptions> add_pipeline(CLI::App& app, Global& global, const std::string& output_doc);
/// The pipeline as it was changed by --set, threads, progress and cancelling; no recording yet.
evaluation::RunRequest read_request(const PipelineOptions& options, const Global& global);
/// Where the results go; beside it OUTPUT.work, where a killed run left what it had worked out: taken up, or with --fresh
/// thrown away; and where fitted priors are kept from run to run.
void set_output(evaluation::RunRequest& request, const std::filesystem::path& output, const PipelineOptions& options);
/// Runs it; when it is interrupted, says where it goes on from.
template <class F>
auto resumable(const evaluation::RunRequest& request, F run) {
  try {
    return run();
  } catch (const Interrupted&) {
    if (std::filesystem::exists(request.work))
      log::info("what took longest is kept in " + request.work.string() + ": the same command goes on from there");
    throw;
  }
}
/// Loads what [input] says and the images of the priors; relative paths start at the pipeline file.
void load_recording(evaluation::RunRequest& request);

/// True once the user pressed Ctrl-C.
bool interrupted();
/// A bar on stderr when it is a terminal and the task takes longer than a second; else nothing.
ProgressFn progress_bar(const Global& global);
/// Ends the line of the bar.
void finish_progress();

/// Output folder of a pipeline: the option, the file's [output] folder, else runs/<name of the file>.
std::filesystem::path output_folder(const Pipeline& pipeline, const std::string& option);
/// Scores as indented lines of text.
std::string scores_text(const Value& result);

}  // namespace percept::cli
