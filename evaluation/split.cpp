#include "evaluation/split.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "core/error.h"
#include "core/params.h"

namespace percept::evaluation {

namespace {

constexpr double kGapUnset = -1;
const std::vector<std::string>& uses() {
  static const std::vector<std::string> kUses{"rows", "time", "kfold", "nested", "column", "subject", "run"};
  return kUses;
}

struct CommonKeys {
  double gap_s = kGapUnset;
  std::int64_t gap_rows = -1, inner_folds = 5;
  static constexpr auto fields() {
    return std::tuple{
        field("gap_s", &CommonKeys::gap_s, "s", "Training frames nearer than this to a test frame are dropped.", 0.0),
        field("gap_rows", &CommonKeys::gap_rows, "", "The same in frames.", 0.0),
        field("inner_folds", &CommonKeys::inner_folds, "",
              "Blocks inside each training part: of nested, and for stages that learn from what others gave out of "
              "fold.",
              2.0, 1e6)};
  }
};
struct TrialKeys {
  std::string by;
  static constexpr auto fields() {
    return std::tuple{field("by", &TrialKeys::by, "",
                            "Label of the events at which trials begin: no trial is cut in two. Every border moves to "
                            "the nearest beginning of a trial, and a gap drops whole trials.")};
  }
};
struct KFoldKeys {
  std::int64_t folds = 5;
  std::string assign = "contiguous", stratify;
  static constexpr auto fields() {
    return std::tuple{
        field("folds", &KFoldKeys::folds, "", "Blocks, each tested once.", 2.0, 1e6),
        choice("assign", &KFoldKeys::assign, "Which rows a block has.", "contiguous|interleaved"),
        field("stratify", &KFoldKeys::stratify, "", "Column of a table: blocks have the same share of each level.")};
  }
};
struct ColumnKeys {
  std::string column;
  std::vector<std::string> test_levels, train_levels;
  static constexpr auto fields() {
    return std::tuple{field("column", &ColumnKeys::column, "", "Column of a table, or table.column."),
                      field("test_levels", &ColumnKeys::test_levels, "", "Levels that are tested, together."),
                      field("train_levels", &ColumnKeys::train_levels, "", "Levels that are trained on.")};
  }
};

template <class P>
void add_keys(std::vector<std::string>& known) {
  for (auto& p : describe_params<P>()) known.push_back(p.key);
}
/// The keys of P out of a table that was already searched for unknown ones.
template <class P>
P read_some(const Value& table, const std::string& where) {
  Value mine = Value::table();
  for (auto& p : describe_params<P>())
    if (const Value* v = table.find(p.key)) mine[p.key] = *v;
  return read_params<P>(mine, where);
}

std::string print(const RowRange& r) { return fmt::format("{}..{}", r.first, r.second); }

/// Sorted, touching ranges joined.
std::vector<RowRange> joined(std::vector<RowRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<RowRange> out;
  for (auto& r : ranges) {
    if (!out.empty() && r.first <= out.back().second + 1) out.back().second = std::max(out.back().second, r.second);
    else out.push_back(r);
  }
  return out;
}

std::optional<RowRange> common(const std::vector<RowRange>& a, const std::vector<RowRange>& b) {
  for (auto& x : a)
    for (auto& y : b)
      if (std::max(x.first, y.first) <= std::min(x.second, y.second))
        return RowRange{std::max(x.first, y.first), std::min(x.second, y.second)};
  return std::nullopt;
}

/// `from` without the rows [low, high].
std::vector<RowRange> without(const std::vector<RowRange>& from, std::int64_t low, std::int64_t high) {
  std::vector<RowRange> out;
  for (auto [first, last] : from) {
    if (last < low || first > high) out.emplace_back(first, last);
    else {
      if (first < low) out.emplace_back(first, low - 1);
      if (last > high) out.emplace_back(high + 1, last);
    }
  }
  return out;
}

class Splitter {
 public:
  Splitter(const SplitSpec& spec, const SplitContext& context)
      : spec_(spec), c_(context), where_(spec.where.empty() ? "split" : spec.where) {}

  std::vector<Fold> make() {
    if (c_.frames < 1) throw ConfigError(where_, "", "a recording with frames, found none");
    std::vector<Fold> folds;
    if (spec_.use == "rows") folds = rows();
    else if (spec_.use == "time") folds = time();
    else if (spec_.use == "kfold" || spec_.use == "nested") folds = blocks();
    else if (spec_.use == "column" || spec_.use == "subject" || spec_.use == "run") folds = column();
    else {
      throw ConfigError(where_ + ".use", spec_.use,
                        fmt::format("one of {}{}", fmt::join(uses(), ", "), did_you_mean(spec_.use, uses())));
    }
    for (auto& f : folds) finish(f);
    return folds;
  }

 private:
  std::string key(const char* name) const { return where_ + "." + name; }

  void know(std::vector<std::string> known) const { refuse_unknown_keys(spec_.params, known, where_); }

  void read_common() {
    const auto keys = read_some<CommonKeys>(spec_.params, where_);
    const bool seconds = spec_.params.contains("gap_s"), frames = spec_.params.contains("gap_rows");
    if (seconds && frames)
      throw ConfigError(key("gap_s"), fmt::format("{:g}", keys.gap_s), "either gap_s or gap_rows, found both");
    if (seconds && c_.axis != Axis::time)
      throw ConfigError(key("gap_s"), fmt::format("{:g}", keys.gap_s), "gap_rows: items have no clock");
    if (spec_.params.contains("by")) read_trials();
    inner_ = keys.inner_folds;
    gap_key_ = c_.axis == Axis::time && !frames ? key("gap_s") : key("gap_rows");
    // half a micro-frame is forgiven, so that 0.3 s at 10 Hz is 3 frames
    if (seconds) gap_ = static_cast<std::int64_t>(std::ceil(keys.gap_s * c_.rate_hz - 1e-6));
    else if (frames) gap_ = keys.gap_rows;
  }

  void read_trials() {
    trials_.label = read_some<TrialKeys>(spec_.params, where_).by;
    const std::string shown = "\"" + trials_.label + "\"";
    if (c_.axis != Axis::time)
      throw ConfigError(key("by"), shown, "no trials: items have no clock (use = \"column\" keeps items together)");
    static const std::vector<Event> kNone;
    const auto& events = c_.events ? *c_.events : kNone;
    require_label(events, trials_.label, key("by"));
    StreamFormat clock;
    clock.rate_hz = c_.rate_hz;
    clock.start_s = c_.start_s;
    const double end_s = clock.time_of(c_.frames);
    const auto row = [&](double t_s) {  // an onset may be anywhere, or missing
      return !(t_s > c_.start_s) ? 0 : t_s >= end_s ? c_.frames : clock.frame_from(t_s);
    };
    std::vector<RowRange> lasts;  // first row, and the one after the last; 0 rows: not stated
    for (auto& e : events)
      if (e.label == Label::of(trials_.label) && std::isfinite(e.onset_s))
        lasts.emplace_back(row(e.onset_s), row(e.onset_s + (e.duration_s > 0 ? e.duration_s : 0)));
    std::sort(lasts.begin(), lasts.end());
    std::int64_t open = 0;
    trials_.starts = c_.segment_starts;
    for (auto& [first, end] : lasts) {
      if (first >= open && first > 0 && first < c_.frames) trials_.starts.push_back(first);
      open = std::max(open, end);
    }
    std::sort(trials_.starts.begin(), trials_.starts.end());
    trials_.starts.erase(std::unique(trials_.starts.begin(), trials_.starts.end()), trials_.starts.end());
  }

  /// The borders moved to the nearest beginning of a trial, the earlier of two.
  RowRange whole(RowRange rows, const char* name, const std::string& shown) const {
    if (trials_.label.empty()) return rows;
    const auto moved = [&](std::int64_t border) {
      const auto after = std::lower_bound(trials_.starts.begin(), trials_.starts.end(), border);
      const std::int64_t next = after == trials_.starts.end() ? c_.frames : *after;
      const std::int64_t before = after == trials_.starts.begin() ? 0 : *(after - 1);
      return next - border < border - before ? next : before;
    };
    const RowRange out{moved(rows.first), moved(rows.second + 1) - 1};
    if (out.second < out.first)
      throw ConfigError(key(name), shown,
                        fmt::format("a range around a trial '{}' (by): both its borders are nearest to row {}",
                                    trials_.label, out.first));
    return out;
  }

  /// [first, last] or a list of them.
  std::vector<std::pair<double, double>> pairs(const char* name, const char* expected) const {
    const Value* v = spec_.params.find(name);
    if (!v) throw ConfigError(key(name), "", expected + std::string(", found nothing"));
    auto bad = [&] { return ConfigError(key(name), to_json(*v), expected); };
    auto one = [&](const Value& p) {
      if (!p.is_array() || p.size() != 2 || !p.as_array()[0].is_number() || !p.as_array()[1].is_number()) throw bad();
      return std::pair{p.as_array()[0].as_number(), p.as_array()[1].as_number()};
    };
    if (!v->is_array() || v->size() == 0) throw bad();
    if (v->as_array()[0].is_number()) return {one(*v)};
    std::vector<std::pair<double, double>> all;
    for (auto& p : v->as_array()) all.push_back(one(p));
    return all;
  }

  std::vector<RowRange> row_ranges(const char* name) const {
    std::vector<RowRange> out;
    for (auto [a, b] : pairs(name, "rows [first, last] or a list of such pairs")) {
      const std::string shown = fmt::format("[{}, {}]", a, b);
      if (a != std::floor(a) || b != std::floor(b) || !(std::abs(a) < 1e15) || !(std::abs(b) < 1e15))
        throw ConfigError(key(name), shown, "whole numbers");
      if (b < a) throw ConfigError(key(name), shown, "first <= last");
      if (a < 0 || b >= static_cast<double>(c_.frames))
        throw ConfigError(key(name), shown,
                          fmt::format("rows inside 0..{} (the recording has {} frames)", c_.frames - 1, c_.frames));
      out.emplace_back(static_cast<std::int64_t>(a), static_cast<std::int64_t>(b));
    }
    return whole(name, out);
  }

  std::vector<RowRange> time_ranges(const char* name) const {
    const double end_s = c_.start_s + static_cast<double>(c_.frames) / c_.rate_hz;
    std::vector<RowRange> out;
    for (auto [a, b] : pairs(name, "seconds [first, last] or a list of such pairs")) {
      const std::string shown = fmt::format("[{:g}, {:g}] s", a, b);
      if (!(a < b)) throw ConfigError(key(name), shown, "first < last");
      const double slack = 0.5 / c_.rate_hz;
      if (a < c_.start_s - slack || b > end_s + slack)
        throw ConfigError(key(name), shown,
                          fmt::format("a range inside the recording's [{:g}, {:g}] s", c_.start_s, end_s));
      // first <= t < last; a frame whose time is on the border up to rounding is on it
      const auto first =
          std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil((a - c_.start_s) * c_.rate_hz - 1e-6)));
      const auto last = std::min<std::int64_t>(
                            c_.frames, static_cast<std::int64_t>(std::ceil((b - c_.start_s) * c_.rate_hz - 1e-6))) -
                        1;
      if (last < first)
        throw ConfigError(key(name), shown, fmt::format("at least one frame (at {:g} Hz there is none)", c_.rate_hz));
      out.emplace_back(first, last);
    }
    return whole(name, out);
  }

  std::vector<RowRange> whole(const char* name, std::vector<RowRange> ranges) const {
    refuse_twice(name, ranges);
    for (auto& r : ranges) r = whole(r, name, print(r));
    return joined(std::move(ranges));
  }

  void refuse_twice(const char* name, const std::vector<RowRange>& ranges) const {
    for (std::size_t i = 0; i < ranges.size(); ++i)
      for (std::size_t j = i + 1; j < ranges.size(); ++j)
        if (auto both = common({ranges[i]}, {ranges[j]}))
          throw ConfigError(key(name), print(ranges[j]),
                            fmt::format("ranges without a row in common, found {} twice", print(*both)));
  }

  void refuse_overlap(const Fold& f, const char* train_key, const char* test_key) const {
    if (auto both = common(f.train, f.test))
      throw ConfigError(
          key(test_key), describe(f.test),
          fmt::format("no row in common with {} ({}), found {}", train_key, describe(f.train), print(*both)));
  }

  std::vector<Fold> rows() {
    std::vector<std::string> known{"train_rows", "test_rows"};
    add_keys<CommonKeys>(known);
    add_keys<TrialKeys>(known);
    know(known);
    read_common();
    Fold f{spec_.name, row_ranges("train_rows"), row_ranges("test_rows"), {}};
    refuse_overlap(f, "train_rows", "test_rows");
    return {f};
  }

  std::vector<Fold> time() {
    std::vector<std::string> known{"train_s", "test_s"};
    add_keys<CommonKeys>(known);
    add_keys<TrialKeys>(known);
    know(known);
    if (c_.axis != Axis::time)
      throw ConfigError(key("use"), "time", "a split by rows, kfold or column: items have no clock");
    read_common();
    Fold f{spec_.name, time_ranges("train_s"), time_ranges("test_s"), {}};
    refuse_overlap(f, "train_s", "test_s");
    return {f};
  }

  std::vector<Fold> blocks() {
    std::vector<std::string> known{"rows"};
    add_keys<KFoldKeys>(known);
    add_keys<CommonKeys>(known);
    add_keys<TrialKeys>(known);
    know(known);
    read_common();
    const auto keys = read_some<KFoldKeys>(spec_.params, where_);
    const auto n = keys.folds;
    const std::vector<RowRange> all =
        spec_.params.contains("rows") ? row_ranges("rows") : std::vector<RowRange>{{0, c_.frames - 1}};
    if (n > count_frames(all))
      throw ConfigError(key("folds"), fmt::format("{}", n),
                        fmt::format("at most one a row ({} rows)", count_frames(all)));
    const bool interleaved = keys.assign == "interleaved";
    if (!interleaved && keys.stratify.empty()) return inner_folds(all, n, 0, key("folds"), trials_);
    if (c_.axis == Axis::time)
      throw ConfigError(key(interleaved ? "assign" : "stratify"), interleaved ? keys.assign : keys.stratify,
                        "contiguous blocks: neighbours in time know each other");
    // rows of each level in order
    std::map<std::string, std::vector<std::int64_t>> levels;
    const auto level = keys.stratify.empty() ? std::vector<std::string>() : levels_of(keys.stratify);
    for (auto [first, last] : all)
      for (std::int64_t k = first; k <= last; ++k)
        levels[level.empty() ? "" : level[static_cast<std::size_t>(k)]].push_back(k);
    std::vector<Fold> folds;
    for (std::int64_t i = 0; i < n; ++i) {
      Fold f{fmt::format("fold {}", i + 1), {}, {}, {}};
      for (auto& [name, rows] : levels)
        for (std::int64_t p = 0; p < std::ssize(rows); ++p) {
          const auto row = rows[static_cast<std::size_t>(p)];
          const bool mine =
              interleaved ? p % n == i : p >= i * std::ssize(rows) / n && p < (i + 1) * std::ssize(rows) / n;
          (mine ? f.test : f.train).emplace_back(row, row);
        }
      f.test = joined(f.test);
      f.train = joined(f.train);
      folds.push_back(std::move(f));
    }
    return folds;
  }

  /// The level of every frame.
  std::vector<std::string> levels_of(const std::string& column) const {
    std::vector<std::string> known;
    if (auto it = c_.labels.find(column); it != c_.labels.end()) {
      if (static_cast<std::int64_t>(it->second.size()) != c_.frames)
        throw ConfigError(key("column"), column, fmt::format("{} labels, found {}", c_.frames, it->second.size()));
      return it->second;
    }
    for (auto& [name, unused] : c_.labels) known.push_back(name);
    const Column* found = nullptr;
    std::string full;
    if (c_.tables)
      for (auto& table : *c_.tables)
        for (auto& col : table.columns) {
          const std::string name = table.name + "." + col.name;
          known.push_back(name);
          if (column != col.name && column != name) continue;
          // a row a volume and a row a block: "run" of the wrong one would split silently
          if (found && column == col.name)
            throw ConfigError(key("column"), column, fmt::format("one table's: {} or {}", full, name));
          found = &col;
          full = name;
        }
    if (found) {
      std::vector<std::string> levels;
      for (std::int64_t k = 0; k < c_.frames; ++k) {
        const std::int64_t row = c_.keys.empty() ? k : c_.keys[static_cast<std::size_t>(k)];
        if (row < 0 || row >= static_cast<std::int64_t>(found->size()))
          throw ConfigError(
              key("column"), full,
              fmt::format("a row for every frame: frame {} needs row {}, found {} rows", k, row, found->size()));
        const auto at = static_cast<std::size_t>(row);
        levels.push_back(found->is_text()                 ? found->text[at]
                         : std::isnan(found->numbers[at]) ? ""
                                                          : fmt::format("{}", found->numbers[at]));
      }
      return levels;
    }
    throw ConfigError(key("column"), column,
                      known.empty() ? "a column of a table: the recording has no table"
                                    : fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(column, known)));
  }

  std::vector<Fold> column() {
    std::vector<std::string> known;
    add_keys<CommonKeys>(known);
    if (spec_.use == "column") known.emplace_back("column");
    known.emplace_back("test_levels");
    known.emplace_back("train_levels");
    know(known);
    read_common();
    auto keys = read_some<ColumnKeys>(spec_.params, where_);
    if (spec_.use != "column") keys.column = spec_.use;
    if (keys.column.empty()) throw ConfigError(key("column"), "", "the name of a column, found nothing");
    const auto level = levels_of(keys.column);
    if (c_.axis == Axis::item) {
      // also inside a training part no level stands on both sides
      std::map<std::string, std::int32_t> number;
      for (auto& l : level)
        groups_.push_back(number.emplace(l, static_cast<std::int32_t>(number.size())).first->second);
    }
    std::vector<std::string> levels;
    for (std::size_t k = 0; k < level.size(); ++k) {
      if (level[k].empty())
        throw ConfigError(key("column"), keys.column,
                          fmt::format("a value for every frame, found none for frame {}", k));
      if (std::find(levels.begin(), levels.end(), level[k]) == levels.end()) levels.push_back(level[k]);
    }
    if (levels.size() < 2)
      throw ConfigError(key("column"), keys.column, fmt::format("at least 2 levels, found only '{}'", levels[0]));
    auto check = [&](const char* name, const std::vector<std::string>& wanted) {
      for (auto& w : wanted)
        if (std::find(levels.begin(), levels.end(), w) == levels.end())
          throw ConfigError(
              key(name), w,
              fmt::format("a level of {}: {}{}", keys.column, fmt::join(levels, ", "), did_you_mean(w, levels)));
    };
    check("test_levels", keys.test_levels);
    check("train_levels", keys.train_levels);
    auto in = [](const std::vector<std::string>& set, const std::string& x) {
      return std::find(set.begin(), set.end(), x) != set.end();
    };
    for (auto& t : keys.test_levels)
      if (in(keys.train_levels, t)) throw ConfigError(key("test_levels"), t, "a level that is not in train_levels");

    auto fold = [&](const std::string& name, const std::vector<std::string>& test) {
      Fold f{name, {}, {}, {}};
      for (std::int64_t k = 0; k < c_.frames; ++k) {
        const auto& l = level[static_cast<std::size_t>(k)];
        if (in(test, l)) f.test.emplace_back(k, k);
        else if (keys.train_levels.empty() || in(keys.train_levels, l)) f.train.emplace_back(k, k);
      }
      f.test = joined(f.test);
      f.train = joined(f.train);
      return f;
    };
    if (!keys.test_levels.empty()) return {fold(spec_.name, keys.test_levels)};
    std::vector<Fold> folds;
    for (auto& l : levels) {
      if (in(keys.train_levels, l)) continue;  // always trained on, so never tested
      folds.push_back(fold(l, {l}));
    }
    if (folds.empty())
      throw ConfigError(key("train_levels"), fmt::format("{}", fmt::join(keys.train_levels, ", ")),
                        "a level left to test");
    return folds;
  }

  /// First and last frame of the recording that holds frame k.
  RowRange segment_of(std::int64_t k) const {
    RowRange s{0, c_.frames - 1};
    for (std::int64_t start : c_.segment_starts) {
      if (start <= k) s.first = std::max(s.first, start);
      else s.second = std::min(s.second, start - 1);
    }
    return s;
  }

  /// Drops training frames within the gap, refuses empty parts and a gap shorter than the memory.
  void finish(Fold& f) const {
    const std::string named = spec_.name == f.name || f.name.empty() ? where_ : where_ + ", " + f.name;
    // a range that runs over the border of two recordings is one range in each
    std::vector<RowRange> test;
    for (auto [first, last] : f.test)
      for (std::int64_t at = first; at <= last; at = segment_of(at).second + 1)
        test.emplace_back(at, std::min(last, segment_of(at).second));
    if (gap_ > 0)
      for (auto& t : test) {
        const RowRange segment = segment_of(t.first);
        const RowRange dropped =
            trials_.around({std::max(segment.first, t.first - gap_), std::min(segment.second, t.second + gap_)});
        f.train = without(f.train, dropped.first, dropped.second);
      }
    if (f.test.empty()) throw ConfigError(named, "", "at least one test row, found none");
    if (f.train.empty())
      throw ConfigError(named, "",
                        gap_ > 0 ? fmt::format("at least one training row, found none after a gap of {} frames", gap_)
                                 : "at least one training row, found none");
    if (c_.axis == Axis::time) refuse_short_gap(f, test, named);
    f.inner_split = {inner_, gap_, trials_, groups_};
    std::set<std::int32_t> trained_on;
    for (auto [first, last] : f.train)
      for (std::int64_t k = first; k <= last && !groups_.empty(); ++k)
        trained_on.insert(groups_[static_cast<std::size_t>(k)]);
    if (trained_on.size() < 2) f.inner_split.groups.clear();  // one level cannot be cut without cutting it
    if (spec_.use == "nested") f.inner = inner_folds(f.train, inner_, gap_, key("inner_folds"), trials_);
  }

  void refuse_short_gap(const Fold& f, const std::vector<RowRange>& test, const std::string& named) const {
    if (c_.memory_frames == 0 || (!trials_.label.empty() && trials_.label == c_.memory_ends_at)) return;
    std::int64_t nearest = -1;  // frames between training and test inside one recording
    for (auto& t : test) {
      const RowRange segment = segment_of(t.first);
      for (auto& r : f.train) {
        const std::int64_t first = std::max(r.first, segment.first), last = std::min(r.second, segment.second);
        if (first > last) continue;
        // training rows lie before the test range, after it, or (never) inside
        const std::int64_t between = last < t.first ? t.first - last - 1 : first - t.second - 1;
        nearest = nearest < 0 ? between : std::min(nearest, between);
      }
    }
    if (nearest < 0) return;  // no recording holds both
    const std::string memory_of = c_.memory_of.empty() ? "the stages before the fitted one" : c_.memory_of;
    const auto seconds = [&](std::int64_t n) {
      return fmt::format("{} frames ({:g} s)", n, static_cast<double>(n) / c_.rate_hz);
    };
    if (c_.memory_frames == Traits::kAllFrames)
      throw ConfigError(named, "",
                        fmt::format("a split by recording, run or subject: {} depends on the whole recording, which "
                                    "holds training and test frames",
                                    memory_of));
    if (c_.memory_frames == Traits::kDecaying) {
      if (nearest == 0)
        throw ConfigError(
            gap_key_, seconds(nearest),
            fmt::format("a gap between training and test: {} remembers earlier frames, fading", memory_of));
      return;
    }
    if (nearest < c_.memory_frames)
      throw ConfigError(gap_key_, seconds(nearest),
                        fmt::format("at least {}: so far back does {} look", seconds(c_.memory_frames), memory_of));
  }

  const SplitSpec& spec_;
  const SplitContext& c_;
  std::string where_, gap_key_;
  std::int64_t gap_ = 0, inner_ = 5;
  Trials trials_;
  std::vector<std::int32_t> groups_;
};

}  // namespace

std::vector<Fold> make_folds(const SplitSpec& spec, const SplitContext& context) {
  return Splitter(spec, context).make();
}

SectionInfo split_section() {
  SectionInfo s{"[[split]]",
                "Which frames are trained on and which are tested, stated before anything is fitted. `rows` and `time` "
                "take ranges; `kfold` tests each block once; `nested` cuts each training part again; "
                "`column` leaves the levels of a table's column out, one after the other, and `subject` and `run` are "
                "short for the columns of that name. Stages before the first fitted one that look back need a gap at "
                "least as long as they remember, unless trials stay whole (`by`) and all of those stages start anew at "
                "them (`reset`).",
                {}};
  const auto text = [](const char* key, const char* fallback, const char* doc) {
    ParamInfo p;
    p.key = key;
    p.type = "string";
    p.doc = doc;
    p.fallback = fallback;
    return p;
  };
  const auto ranges = [](const char* key, const char* unit, const char* doc) {
    ParamInfo p;
    p.key = key;
    p.type = "numbers";
    p.unit = unit;
    p.doc = doc;
    p.fallback = Value::array();
    return p;
  };
  s.params = {
      text("name", "official", "Of the split, in results."),
      text("use", "rows", "How it is made."),
      ranges("train_rows", "", "rows: trained on, [first, last] or a list of such pairs; both ends belong to it."),
      ranges("test_rows", "", "rows: tested."),
      ranges("train_s", "s", "time: trained on, first <= t < last, or a list of such pairs."),
      ranges("test_s", "s", "time: tested."),
      ranges("rows", "", "kfold, nested: only these rows; all when empty.")};
  s.params[1].choices = uses();
  const auto add = [&](std::vector<ParamInfo> more, const std::string& of) {
    for (auto& p : more) {
      p.doc = of + p.doc;
      s.params.push_back(std::move(p));
    }
  };
  add(describe_params<KFoldKeys>(), "kfold, nested: ");
  add(describe_params<TrialKeys>(), "rows, time, kfold, nested: ");
  add(describe_params<ColumnKeys>(), "column: ");
  add(describe_params<CommonKeys>(), "");
  for (auto& p : s.params)
    if (p.key == "gap_s" || p.key == "gap_rows") p.fallback = 0;
  return s;
}

RowRange Trials::around(RowRange rows) const {
  if (label.empty()) return rows;
  const auto first = std::upper_bound(starts.begin(), starts.end(), rows.first);
  const auto next = std::upper_bound(starts.begin(), starts.end(), rows.second);
  return {first == starts.begin() ? 0 : *(first - 1),
          next == starts.end() ? std::numeric_limits<std::int64_t>::max() : *next - 1};
}

namespace {
/// Where the rows, counted through, may be cut: before the first one of a range or a trial.
std::vector<std::int64_t> cuts_between(const std::vector<RowRange>& rows, const Trials& trials) {
  std::vector<std::int64_t> cuts;
  std::int64_t before = 0;
  for (auto& [first, last] : rows) {
    cuts.push_back(before);
    for (auto s = std::upper_bound(trials.starts.begin(), trials.starts.end(), first);
         s != trials.starts.end() && *s <= last; ++s)
      cuts.push_back(before + *s - first);
    before += last - first + 1;
  }
  return cuts;
}

/// First position of each block, and the number of rows.
std::vector<std::int64_t> block_borders(const std::vector<RowRange>& train, std::int64_t folds,
                                        const std::string& where, const Trials& trials) {
  const std::int64_t n = count_frames(train);
  std::vector<std::int64_t> borders;
  if (trials.label.empty()) {
    if (n < folds)
      throw ConfigError(where, fmt::format("{}", folds), fmt::format("at most one a training row ({} rows)", n));
    for (std::int64_t i = 0; i <= folds; ++i) borders.push_back(i * n / folds);
    return borders;
  }
  const auto cuts = cuts_between(train, trials);
  const auto pieces = std::ssize(cuts);
  if (pieces < folds)
    throw ConfigError(where, fmt::format("{}", folds),
                      fmt::format("at most one a trial '{}' ({} in these rows)", trials.label, pieces));
  borders.push_back(0);
  for (std::int64_t i = 1, taken = 0; i < folds; ++i) {
    // the cut nearest to where the block would end, with at least one trial left for each of the others
    const std::int64_t wanted = i * n / folds;
    std::int64_t at = std::lower_bound(cuts.begin(), cuts.end(), wanted) - cuts.begin();
    if (at == pieces ||
        (at > 0 && wanted - cuts[static_cast<std::size_t>(at - 1)] <= cuts[static_cast<std::size_t>(at)] - wanted))
      --at;
    taken = std::clamp<std::int64_t>(at, taken + 1, pieces - (folds - i));
    borders.push_back(cuts[static_cast<std::size_t>(taken)]);
  }
  borders.push_back(n);
  return borders;
}
}  // namespace

std::vector<Fold> inner_folds(const std::vector<RowRange>& train, std::int64_t folds, std::int64_t gap,
                              const std::string& where, const Trials& trials) {
  if (folds < 2) throw ConfigError(where, fmt::format("{}", folds), "at least 2");
  const auto borders = block_borders(train, folds, where, trials);
  std::vector<Fold> out;
  for (std::int64_t i = 0; i < folds; ++i) {
    const std::int64_t low = borders[static_cast<std::size_t>(i)], high = borders[static_cast<std::size_t>(i + 1)];
    Fold f{fmt::format("fold {}", i + 1), {}, {}, {}};
    std::int64_t before = 0;
    for (auto [first, last] : train) {
      const std::int64_t length = last - first + 1;
      const std::int64_t a = std::max(low - before, std::int64_t{0}), b = std::min(high - before, length);
      if (a < b) f.test.emplace_back(first + a, first + b - 1);
      before += length;
    }
    f.train = train;
    for (auto [first, last] : f.test) {
      const RowRange dropped = trials.around({first - gap, last + gap});
      f.train = without(f.train, dropped.first, dropped.second);
    }
    if (f.train.empty())
      throw ConfigError(where, fmt::format("{}", folds),
                        fmt::format("training rows left beside a gap of {} frames, found none", gap));
    out.push_back(std::move(f));
  }
  return out;
}

std::vector<Fold> inner_folds_of_groups(const std::vector<RowRange>& train, std::int64_t folds,
                                        const std::vector<std::int32_t>& groups, const std::string& where) {
  std::map<std::int32_t, std::int64_t> place;
  std::vector<std::int64_t> rows, fold;
  for (auto [first, last] : train)
    for (std::int64_t k = first; k <= last; ++k) {
      rows.push_back(k);
      const auto group = groups.at(static_cast<std::size_t>(k));
      fold.push_back(place.emplace(group, static_cast<std::int64_t>(place.size())).first->second % folds);
    }
  if (folds < 2) throw ConfigError(where, fmt::format("{}", folds), "at least 2");
  if (std::ssize(place) < folds)
    throw ConfigError(where, fmt::format("{}", folds),
                      fmt::format("at most one a group of training rows ({} groups)", place.size()));
  std::vector<Fold> out;
  for (std::int64_t i = 0; i < folds; ++i) {
    Fold f{fmt::format("fold {}", i + 1), {}, {}, {}};
    for (std::size_t r = 0; r < rows.size(); ++r) (fold[r] == i ? f.test : f.train).emplace_back(rows[r], rows[r]);
    f.test = joined(f.test);
    f.train = joined(f.train);
    out.push_back(std::move(f));
  }
  return out;
}

std::int64_t count_frames(const std::vector<RowRange>& ranges) {
  std::int64_t n = 0;
  for (auto& [first, last] : ranges) n += last - first + 1;
  return n;
}

std::string describe(const std::vector<RowRange>& ranges) {
  std::string s;
  for (auto& r : ranges) s += (s.empty() ? "" : ", ") + print(r);
  return s.empty() ? "none" : s;
}

Value to_value(const InnerSplit& inner) {
  Value v = Value::object({{"folds", inner.folds}, {"gap", inner.gap}});
  if (!inner.trials.label.empty()) v["by"] = inner.trials.label;
  return v;
}

Value to_value(const SplitSpec& spec, const std::vector<Fold>& folds, const SplitContext& context) {
  Value v =
      Value::object({{"name", spec.name}, {"use", spec.use}, {"parameters", spec.params}, {"frames", context.frames}});
  if (context.axis == Axis::time) v["rate_hz"] = context.rate_hz;
  v["memory_frames"] = context.memory_frames;
  auto pairs = [](const std::vector<RowRange>& ranges) {
    Value list = Value::array();
    for (auto& [first, last] : ranges) list.push_back(Value::array({first, last}));
    return list;
  };
  Value list = Value::array();
  for (auto& f : folds)
    list.push_back(Value::object({{"name", f.name},
                                  {"train", pairs(f.train)},
                                  {"test", pairs(f.test)},
                                  {"train_frames", count_frames(f.train)},
                                  {"test_frames", count_frames(f.test)}}));
  v["folds"] = std::move(list);
  return v;
}

}  // namespace percept::evaluation
