#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "cli/command.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/threads.h"

namespace {
int failed(const percept::cli::Global& global, const std::string& message, percept::Exit code) {
  percept::cli::finish_progress();
  percept::log::error(message);
  if (global.json) {
    const auto object = percept::Value::object({{"error", message}, {"exit", static_cast<int>(code)}});
    std::printf("%s\n", percept::to_json(object, 2).c_str());
  }
  return static_cast<int>(code);
}
}  // namespace

int main(int argc, char** argv) {
  using namespace percept;
  keep_freed_memory();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is like a full disk: an error where it is written
  cli::Global global;
  std::vector<std::function<Value()>> actions;
  const auto app = cli::make_app(global, actions);
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app->exit(e);
  } catch (const CLI::ParseError& e) {
    // known before the error: the reader of JSON still gets an object
    for (int i = 1; i < argc; ++i) global.json = global.json || std::string_view(argv[i]) == "--json";
    return failed(global, std::string(e.what()) + " (percept --help)", Exit::usage);
  }
  if (global.quiet) log::set_level(log::Level::error);
  try {
    for (std::size_t i = 0; i < cli::commands().size(); ++i) {
      const cli::Command& command = cli::commands()[i];
      if (!app->get_subcommand(command.name)->parsed()) continue;
      if (command.computes) restart_with_fast_blas(argv);
      set_thread_budget(global.threads);
      const Value result = actions[i]();
      cli::finish_progress();
      if (global.json) std::printf("%s\n", to_json(result, 2).c_str());
      return 0;
    }
  } catch (const Error& e) {
    return failed(global, e.what(), e.code());
  } catch (const std::bad_alloc&) {
    return failed(global, "out of memory: try a smaller run.block", Exit::run_failed);
  } catch (const std::exception& e) {
    return failed(global, std::string("unexpected: ") + e.what(), Exit::run_failed);
  }
  std::printf("%s", app->help().c_str());
  return static_cast<int>(Exit::usage);
}
