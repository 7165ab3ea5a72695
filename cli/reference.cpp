#include "cli/reference.h"

#include <fmt/format.h>

#include <cmath>

#include "evaluation/metrics.h"
#include "evaluation/split.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept::cli {

namespace {

std::string range_text(const ParamInfo& p) {
  if (!p.choices.empty()) return fmt::format("{}", fmt::join(p.choices, ", "));
  if (p.type == "string" || p.type == "strings" || p.type == "boolean") return "";
  if (std::isinf(p.min) && std::isinf(p.max)) return "";
  if (std::isinf(p.max)) return fmt::format(">= {}", p.min);
  if (std::isinf(p.min)) return fmt::format("<= {}", p.max);
  return fmt::format("{} to {}", p.min, p.max);
}
std::string unit_text(const ParamInfo& p) { return p.unit == "1" ? "" : p.unit; }

std::string what_it_is(const StageInfo& i) {
  std::string s = !i.trained       ? "not learned"
                  : i.needs_target ? "learned from a target"
                  : i.takes_target ? "learned with or without a target"
                                   : "learned without a target";
  if (i.real_time) s += ", real-time";
  if (i.needs_torch) s += ", needs LibTorch";
  if (!i.causal_twin.empty()) s += fmt::format(", not causal (live: {})", i.causal_twin);
  return s;
}

std::string params_table(const std::vector<ParamInfo>& params) {
  if (params.empty()) return "";
  std::string s = "\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
  for (auto& p : params) {
    const auto unit = unit_text(p);
    s += fmt::format("| `{}` | {} | {}{} | {} | {} |\n", p.key, p.type, to_json(p.fallback),
                     unit.empty() ? "" : " " + unit, range_text(p), p.doc);
  }
  return s;
}

Value param_schema(const ParamInfo& p) {
  Value one = Value::table();
  const std::string item = p.type == "integers" || p.type == "integer" ? "integer"
                           : p.type == "numbers" || p.type == "number" ? "number"
                           : p.type == "boolean"                       ? "boolean"
                                                                       : "string";
  one["type"] = item;
  if (!p.choices.empty()) one["enum"] = Value(p.choices);
  if (std::isfinite(p.min)) one["minimum"] = p.min;
  if (std::isfinite(p.max)) one["maximum"] = p.max;
  Value s = one;
  if (p.type.back() == 's') s = Value::object({{"type", "array"}, {"items", one}});
  s["description"] = p.doc + (unit_text(p).empty() ? "" : " [" + p.unit + "]");
  s["default"] = p.fallback;
  return s;
}

}  // namespace

Value stage_value(const StageInfo& i) {
  Value params = Value::array();
  for (auto& p : i.params) {
    Value v =
        Value::object({{"key", p.key}, {"type", p.type}, {"unit", p.unit}, {"default", p.fallback}, {"doc", p.doc}});
    if (std::isfinite(p.min)) v["min"] = p.min;
    if (std::isfinite(p.max)) v["max"] = p.max;
    if (!p.choices.empty()) v["choices"] = Value(p.choices);
    params.push_back(v);
  }
  return Value::object({{"name", i.name},
                        {"folder", i.folder},
                        {"doc", i.doc},
                        {"version", i.version},
                        {"trained", i.trained},
                        {"needs_target", i.needs_target},
                        {"takes_target", i.takes_target},
                        {"needs_torch", i.needs_torch},
                        {"priors", Value(i.priors)},
                        {"real_time", i.real_time},
                        {"causal_twin", i.causal_twin},
                        {"paper", i.paper},
                        {"params", params}});
}

std::string stage_text(const StageInfo& i) {
  std::string s = fmt::format("{} ({}/): {}\n{}; version {}\n", i.name, i.folder, i.doc, what_it_is(i), i.version);
  if (!i.paper.empty()) s += "source: " + i.paper + "\n";
  if (i.params.empty()) return s + "\nno parameters\n";
  s += "\n";
  for (auto& p : i.params) {
    const auto range = range_text(p), unit = unit_text(p);
    s += fmt::format("  {:<16} {} = {}{}\n                   {}\n", p.key, p.type, to_json(p.fallback),
                     (unit.empty() ? "" : " " + unit) + (range.empty() ? "" : "  (" + range + ")"), p.doc);
  }
  return s;
}

Value pipeline_schema(const Registry& registry) {
  Value stages = Value::array();
  for (auto& i : registry.all()) {
    Value properties = Value::object({{"use", Value::object({{"const", i.name}, {"description", i.doc}})}});
    for (auto& key : reserved_stage_keys())
      if (key != "use") properties[key] = Value::table();
    for (auto& p : i.params) properties[p.key] = param_schema(p);
    stages.push_back(Value::object({{"type", "object"},
                                    {"title", i.name},
                                    {"properties", properties},
                                    {"required", Value::array({"use"})},
                                    {"additionalProperties", false}}));
  }
  Value priors = Value::array();
  for (auto& i : registry.all()) {
    if (!i.trained) continue;
    Value properties = Value::object({{"use", Value::object({{"const", i.name}, {"description", i.doc}})}});
    for (auto& key : reserved_prior_keys())
      if (key != "use") properties[key] = Value::table();
    for (auto& p : i.params) properties[p.key] = param_schema(p);
    priors.push_back(Value::object({{"type", "object"},
                                    {"title", i.name},
                                    {"properties", properties},
                                    {"required", Value::array({"name", "use", "images"})},
                                    {"additionalProperties", false}}));
  }
  const auto list = [](const Value& items) { return Value::object({{"type", "array"}, {"items", items}}); };
  const Value table = Value::object({{"type", "object"}});
  Value search = table;  // and a table for each node
  for (auto& section : pipeline_sections())
    if (section.name == "[search]")
      for (auto& p : section.params) search["properties"][p.key] = param_schema(p);
  return Value::object({{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                        {"title", "percept pipeline"},
                        {"type", "object"},
                        {"properties", Value::object({{"title", Value::object({{"type", "string"}})},
                                                      {"description", Value::object({{"type", "string"}})},
                                                      {"input", table},
                                                      {"prior", list(Value::object({{"oneOf", priors}}))},
                                                      {"stage", list(Value::object({{"oneOf", stages}}))},
                                                      {"split", list(table)},
                                                      {"search", search},
                                                      {"score", list(table)},
                                                      {"run", table},
                                                      {"output", table},
                                                      {"live", table}})},
                        {"required", Value::array({"input", "stage"})},
                        {"additionalProperties", false}});
}

std::string reference_markdown(const Registry& registry) {
  std::string s = "# Reference\n\nMade from the program by `./dev docs`; do not edit.\n\n## Commands\n";
  Global global;
  std::vector<std::function<Value()>> actions;
  const auto app = make_app(global, actions);
  for (auto& c : commands())
    s += fmt::format("\n### percept {}\n\n```text\n{}```\n", c.name, app->get_subcommand(c.name)->help("percept"));
  s += "\n## Metrics\n\n| name | unit | better | per output | definition |\n|---|---|---|---|---|\n";
  for (auto& m : evaluation::metrics())
    s += fmt::format("| `{}` | {} | {} | {} | {} |\n", m.name, m.unit, m.lower_is_better ? "lower" : "higher",
                     m.per_output ? "yes" : "no", m.doc);
  s += "\n## Sections of a pipeline file\n";
  auto sections = pipeline_sections();
  sections.insert(sections.begin(), evaluation::split_section());
  const auto live = live_sections();
  sections.insert(sections.end(), live.begin(), live.end());
  for (auto& section : sections)
    s += fmt::format("\n### {}\n\n{}\n{}", section.name, section.doc, params_table(section.params));
  for (auto& [title, kinds] : {std::pair{"source", &source_kinds()}, {"outlet", &outlet_kinds()}}) {
    s += fmt::format("\n## Live {}s\n\n`percept live --{} KIND:KEY=VALUE,KEY=VALUE`, or `{}` of `[live]`.\n", title,
                     title[0] == 's' ? "source" : "output", title[0] == 's' ? "source" : "output");
    for (auto& k : *kinds) s += fmt::format("\n### {} {}\n\n{}\n{}", title, k.name, k.doc, params_table(k.params));
  }
  s += "\n## Samplers\n\nOf diffusion models (`reconstruction/diffusion/sampler.h`). A posterior sampler takes a "
       "measurement "
       "y = A(x) + noise; the others draw from the prior.\n";
  for (auto& i : diffusion::samplers())
    s += fmt::format("\n### sampler {}\n\n{} Needs {}.\n\nSource: {}\n{}", i.name, i.doc,
                     diffusion::needs_text(i.make(Value::table(), i.name)->needs(1)), i.paper, params_table(i.params));
  s +=
      "\n## Stages\n\nA pipeline file names one with `use = \"...\"`. Every stage also takes `name`, `from`, `align`, "
      "`queue`, `queue_blocks`;\na learned one `target`, `fit`, `fit_s`, `model`, `prior`.\n"
      "\n`reset = \"LABEL\"` on a stage with a memory: it starts anew at the onset of each event of that label, "
      "offline "
      "and live, and a\nlearned one is fitted on pieces that end there. Recordings that are trials glued together need "
      "it: without, a filter carries\nits state over every joint. What holds frames back or looks ahead is refused.\n";
  for (auto& i : registry.all()) {
    s += fmt::format("\n### {}\n\n{} In `{}/`; {}; version {}.\n", i.name, i.doc, i.folder, what_it_is(i), i.version);
    if (!i.paper.empty()) s += "\nSource: " + i.paper + "\n";
    s += params_table(i.params);
  }
  return s;
}

}  // namespace percept::cli
