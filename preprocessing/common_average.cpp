#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = x - mean (or median) of the good rows of its group that are there, frame by frame.
class CommonAverage final : public Typed<CommonAverage> {
 public:
  struct Params {
    std::string statistic = "mean", groups = "all";
    std::int64_t group_rows = 0;
    static constexpr auto fields() {
      return std::tuple{
          choice("statistic", &Params::statistic,
                 "mean, or median, which a few wild rows do not move; it takes some twenty times longer.",
                 "mean|median"),
          choice("groups", &Params::groups,
                 "Rows that are averaged together: all, those of each part, or those of each kind.", "all|part|kind"),
          field("group_rows", &Params::group_rows, "",
                "Cuts each group into pieces of so many rows in their order, such as the channels of one array or "
                "amplifier; 0: not cut.",
                0, 1e9)};
    }
  };
  explicit CommonAverage(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "common_average");
    const auto rows = channels_of(in);
    groups_.clear();
    for (const auto& members : grouped(in, rows, context)) {
      Group g;
      Index good = 0;
      const Channel& first = rows[static_cast<std::size_t>(members.front())];
      for (const Index r : members) {
        const Channel& c = rows[static_cast<std::size_t>(r)];
        require(c.unit == first.unit, context, "", "row '" + c.name + "' in " + c.unit,
                "rows of one unit, like '" + first.name + "' in " + first.unit);
        append(g.rows, r);
        if (!c.good) continue;
        append(g.good, r);
        ++good;
      }
      const Channel& last = rows[static_cast<std::size_t>(members.back())];
      require(good >= 2, context, members.size() < rows.size() ? "groups" : "",
              fmt::format("{} good rows", good) +
                  (members.size() < rows.size() ? " from '" + first.name + "' to '" + last.name + "'" : ""),
              "at least two");
      groups_.push_back(std::move(g));
    }
    sorted_.resize(static_cast<std::size_t>(in.size()));
    return in;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    const bool median = p_.statistic == "median";
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      for (const Group& g : groups_) {
        const double common = median ? median_of(x, g) : mean_of(x, g);
        for (const Run& run : g.rows) {
          using Row = Eigen::Array<T, Eigen::Dynamic, 1>;
          Eigen::Map<Row>(y + run.first, run.rows) =
              (Eigen::Map<const Row>(x + run.first, run.rows).template cast<double>() - common).template cast<T>();
        }
      }
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  /// Rows that follow each other.
  struct Run {
    Index first, rows;
  };
  struct Group {
    std::vector<Run> rows, good;  ///< all of it, and those that the average is over
  };
  static void append(std::vector<Run>& runs, Index row) {
    if (!runs.empty() && runs.back().first + runs.back().rows == row) ++runs.back().rows;
    else runs.push_back({row, 1});
  }

  std::vector<std::vector<Index>> grouped(const StreamFormat& in, const std::vector<Channel>& rows, Context& context) {
    std::vector<std::vector<Index>> groups;
    if (p_.groups == "kind") {
      std::map<std::string, std::size_t> of_kind;
      for (std::size_t r = 0; r < rows.size(); ++r) {
        require(!rows[r].kind.empty(), context, "groups", "\"kind\", and row '" + rows[r].name + "' has none",
                "rows that have kinds, or \"all\" or \"part\"");
        const auto at = of_kind.emplace(rows[r].kind, groups.size());
        if (at.second) groups.emplace_back();
        groups[at.first->second].push_back(static_cast<Index>(r));
      }
    } else {
      Index row = 0;
      for (const Part& part : in.parts) {
        if (groups.empty() || p_.groups == "part") groups.emplace_back();
        for (Index r = 0; r < part.size(); ++r) groups.back().push_back(row++);
      }
    }
    if (p_.group_rows == 0) return groups;
    std::vector<std::vector<Index>> pieces;
    for (const auto& g : groups)
      for (std::size_t k = 0; k < g.size(); ++k) {
        if (k % static_cast<std::size_t>(p_.group_rows) == 0) pieces.emplace_back();
        pieces.back().push_back(g[k]);
      }
    return pieces;
  }

  /// A row minus itself would read as silence: two at least.
  template <class T>
  static double mean_of(const T* x, const Group& g) noexcept {
    using Lanes = Eigen::Array<double, 8, 1>;
    Lanes lanes = Lanes::Zero();
    double sum = 0;
    Index n = 0;
    for (const Run& run : g.good) {
      Index r = run.first;
      const Index end = run.first + run.rows;
      for (; r + 8 <= end; r += 8) lanes += Eigen::Map<const Eigen::Array<T, 8, 1>>(x + r).template cast<double>();
      for (; r < end; ++r) sum += static_cast<double>(x[r]);
      n += run.rows;
    }
    for (Index i = 0; i < 8; ++i) sum += lanes[i];
    if (usable(sum)) return sum / static_cast<double>(n);
    sum = 0;
    n = 0;
    for (const Run& run : g.good)
      for (Index r = run.first; r < run.first + run.rows; ++r)
        if (const auto value = static_cast<double>(x[r]); usable(value)) {
          sum += value;
          ++n;
        }
    return n >= 2 ? sum / static_cast<double>(n) : kNone;
  }

  template <class T>
  double median_of(const T* x, const Group& g) noexcept {
    auto end = sorted_.begin();
    for (const Run& run : g.good)
      for (Index r = run.first; r < run.first + run.rows; ++r)
        if (const auto value = static_cast<double>(x[r]); usable(value)) *end++ = value;
    const auto n = end - sorted_.begin();
    if (n < 2) return kNone;
    const auto middle = sorted_.begin() + n / 2;
    std::nth_element(sorted_.begin(), middle, end);
    return n % 2 ? *middle : (*std::max_element(sorted_.begin(), middle) + *middle) / 2;
  }

  Params p_;
  std::vector<Group> groups_;
  std::vector<double> sorted_;  ///< room for the values of a group
};
}  // namespace

StageInfo info_common_average() {
  auto i = stage_info<CommonAverage>(
      "common_average", "preprocessing",
      "Takes from every row the mean or median of the good rows of the same frame, over all rows or within groups. "
      "Rows "
      "that are NaN or marked bad are left out of it; with fewer than two rows left the group is NaN.");
  i.version = 2;
  i.paper =
      "Ludwig et al., Using a common average reference to improve cortical neuron recordings from microelectrode "
      "arrays, Journal of Neurophysiology 101, 2009";
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all = both_scalars({});
    for (const char* statistic : {"mean", "median"}) {
      Sample s;
      s.format = time_format(23, 100.0);
      s.params = Value::object({{"statistic", statistic}, {"group_rows", 12}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
