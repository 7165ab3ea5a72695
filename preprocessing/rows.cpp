#include "preprocessing/rows.h"

namespace percept {

std::vector<Channel> channels_of(const StreamFormat& format) {
  std::vector<Channel> all;
  auto names = format.row_names();
  for (auto& part : format.parts) {
    const bool named = static_cast<Index>(part.rows.size()) == part.size();
    for (Index i = 0; i < part.size(); ++i) {
      Channel c = named ? part.rows[static_cast<std::size_t>(i)] : Channel{};
      c.name = names[all.size()];
      if (named && format.parts.size() > 1) c.name = part.name + "." + c.name;
      if (c.unit.empty()) c.unit = part.unit;
      all.push_back(std::move(c));
    }
  }
  return all;
}

std::string common_unit(const std::vector<Channel>& rows) {
  for (auto& r : rows)
    if (r.unit != rows.front().unit) return "1";
  return rows.empty() ? "1" : rows.front().unit;
}

void require_frames(const StreamFormat& in, const Context& context, const char* stage) {
  if (in.axis == Axis::time) require_time(in, context, stage);
  else require_items(in, context, stage);
}

std::vector<Sample> both_scalars(Sample sample) {
  sample.format.scalar = Scalar::f32;
  std::vector<Sample> two(2, sample);
  two[1].format.scalar = Scalar::f64;
  return two;
}

}  // namespace percept
