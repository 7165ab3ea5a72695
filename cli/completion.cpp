#include <fmt/format.h>

#include "cli/command.h"
#include "data/registry.h"
#include "percept/registry.h"

namespace percept::cli {

namespace {

struct Words {
  std::string command, doc;
  std::vector<std::string> words;  ///< options and sub-commands
};

std::vector<Words> all_words() {
  Global global;
  std::vector<std::function<Value()>> actions;
  const auto app = make_app(global, actions);
  std::vector<Words> all;
  for (auto& c : commands()) {
    Words w{c.name, c.doc, {}};
    const auto* sub = app->get_subcommand(c.name);
    for (auto* option : sub->get_options())
      for (auto& name : option->get_lnames()) w.words.push_back("--" + name);
    for (auto* nested : sub->get_subcommands([](const CLI::App*) { return true; }))
      w.words.push_back(nested->get_name());
    if (w.command == "stages")
      for (auto& s : builtin_registry().names()) w.words.push_back(s);
    if (w.command == "data" || w.command == "info")
      for (auto& s : data::data_sets()) w.words.push_back(s.name);
    if (w.command == "completion") w.words.insert(w.words.end(), {"bash", "zsh", "fish"});
    all.push_back(std::move(w));
  }
  return all;
}

std::string bash(bool zsh) {
  std::string names, cases;
  for (auto& w : all_words()) {
    names += (names.empty() ? "" : " ") + w.command;
    cases += fmt::format("    {}) words=\"{}\" ;;\n", w.command, fmt::join(w.words, " "));
  }
  return fmt::format(
      "{}_percept() {{\n"
      "  local current=\"${{COMP_WORDS[COMP_CWORD]}}\" words=\"\"\n"
      "  case \"${{COMP_CWORD}}:${{COMP_WORDS[1]}}\" in 1:*) words=\"{} --help --version\" ;; *) case "
      "\"${{COMP_WORDS[1]}}\" in\n{}  esac ;; esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\") $(compgen -f -- \"$current\"))\n"
      "}}\n"
      "complete -o filenames -F _percept percept\n",
      zsh ? "autoload -U +X bashcompinit && bashcompinit\n" : "", names, cases);
}

std::string fish() {
  std::string s;
  for (auto& w : all_words()) {
    s += fmt::format("complete -c percept -n __fish_use_subcommand -a {} -d '{}'\n", w.command, w.doc);
    for (auto& word : w.words)
      s += word.rfind("--", 0) == 0
               ? fmt::format("complete -c percept -n '__fish_seen_subcommand_from {}' -l {}\n", w.command,
                             word.substr(2))
               : fmt::format("complete -c percept -n '__fish_seen_subcommand_from {}' -a {}\n", w.command, word);
  }
  return s;
}

}  // namespace

Command completion_command() {
  return {
      "completion", "Print a completion script for a shell",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        auto shell = std::make_shared<std::string>();
        app.add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
        add_json(app, global);
        app.footer("bash: source <(percept completion bash)");
        return [=, &global]() -> Value {
          const std::string script = *shell == "fish" ? fish() : bash(*shell == "zsh");
          if (!global.json) fmt::print("{}", script);
          return Value::object({{"shell", *shell}, {"script", script}});
        };
      }};
}

}  // namespace percept::cli
