/// Text made from the registry and the commands: help of a stage, the reference page, the JSON Schema.
#pragma once

#include <string>

#include "cli/command.h"
#include "core/registry.h"

namespace percept::cli {

Value stage_value(const StageInfo& info);
std::string stage_text(const StageInfo& info);
/// JSON Schema (draft 2020-12) of a pipeline file.
Value pipeline_schema(const Registry& registry);
/// docs/reference.md.
std::string reference_markdown(const Registry& registry);

}  // namespace percept::cli
