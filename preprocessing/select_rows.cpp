#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = x[kept], the rows in their order.
class SelectRows final : public Typed<SelectRows> {
 public:
  struct Params {
    std::vector<std::string> kinds, rows;
    static constexpr auto fields() {
      return std::tuple{
          field("kinds", &Params::kinds, "",
                "Rows of one of these kinds, such as areas; a row of several kinds is of each (\"V1+V2\")."),
          field("rows", &Params::rows, "", "Rows of these names, too.")};
    }
  };
  explicit SelectRows(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "select_rows");
    require(!p_.kinds.empty() || !p_.rows.empty(), context, "kinds", "[]", "at least one kind or row to keep");
    require(in.parts.size() == 1 && in.parts[0].shape.size() == 1, context, "from", in.describe(),
            "one part of rows (\"node.part\" takes one of several)");
    const auto& rows = in.parts[0].rows;
    require(static_cast<Index>(rows.size()) == in.size(), context, "from", in.describe(), "rows with names and kinds");
    std::set<std::string> names, kinds, missing;
    kept_.clear();
    auto wants = [](const std::vector<std::string>& list, const std::string& s) {
      return std::find(list.begin(), list.end(), s) != list.end();
    };
    Part part = in.parts[0];
    part.rows.clear();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      bool keep = wants(p_.rows, rows[r].name);
      names.insert(rows[r].name);
      for (std::size_t at = 0; at <= rows[r].kind.size();) {
        const auto end = std::min(rows[r].kind.find('+', at), rows[r].kind.size());
        const std::string kind = rows[r].kind.substr(at, end - at);
        kinds.insert(kind);
        keep = keep || wants(p_.kinds, kind);
        at = end + 1;
      }
      if (!keep) continue;
      kept_.push_back(static_cast<Index>(r));
      part.rows.push_back(rows[r]);
    }
    kinds.erase("");
    for (auto& k : p_.kinds)
      require(kinds.contains(k), context, "kinds", "\"" + k + "\"",
              kinds.empty()
                  ? "rows that have kinds"
                  : fmt::format("one of {}{}", fmt::join(kinds, ", "), did_you_mean(k, {kinds.begin(), kinds.end()})));
    for (auto& n : p_.rows)
      require(names.contains(n), context, "rows", "\"" + n + "\"",
              "a row of the input" + did_you_mean(n, {names.begin(), names.end()}));
    part.shape = {static_cast<Index>(kept_.size())};
    StreamFormat out = in;
    out.parts = {std::move(part)};
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    return take_rows(kept_, b, in, o, out);
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Params p_;
  std::vector<Index> kept_;
};
}  // namespace

StageInfo info_select_rows() {
  auto i =
      stage_info<SelectRows>("select_rows", "preprocessing",
                             "Keeps the rows of some kinds or names: one area of the brain as a branch of its own.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    for (const char* kind : {"V1", "V1+V2", "V2", "V3", ""})
      s.format.parts[0].rows.push_back(
          {.name = fmt::format("r{}", s.format.parts[0].rows.size()), .kind = kind, .unit = "", .position = {}});
    s.params = Value::object(
        {{"kinds", Value(std::vector<std::string>{"V2"})}, {"rows", Value(std::vector<std::string>{"r4"})}});
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
