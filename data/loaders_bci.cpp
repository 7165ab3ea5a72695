/// Motor cortex and hippocampus.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <numeric>
#include <set>

#include "core/error.h"
#include "data/loader.h"
#include "io/mat.h"

namespace percept::data {
namespace fs = std::filesystem;

namespace {
Stream binned(const std::string& name, Eigen::MatrixXd m, double rate_hz, const std::vector<std::string>& rows,
              const std::string& kind, const std::string& unit = "1") {
  Stream s = memory_stream(name, std::move(m), rate_hz, 0.5 / rate_hz, rows, unit);
  for (auto& c : s.format.parts[0].rows) c.kind = kind;
  return s;
}

/// The time of a row as StreamFormat::time_of gives it, so that an event at it finds exactly its frame.
double frame_time(double row, double rate_hz) { return 0.5 / rate_hz + row / rate_hz; }

// --- flint_run1 -----------------------------------------------------------------------------------------------------

void load_flint(const Files& files, const NoParams&, Recording& r) {
  Eigen::MatrixXd x = files.csv("x.csv", 10), z = files.csv("z.csv", 2);
  files.same_lines("x.csv", x, "z.csv", z);
  r.streams.push_back(binned("activity", std::move(x), 10, numbered("pc", 10), "component"));
  r.streams.push_back(binned("kinematics", std::move(z), 10, {"vx", "vy"}, "velocity"));
}

// --- contdata95 -----------------------------------------------------------------------------------------------------

/// Directions in as many groups as there are targets, cut at the widest gaps between neighbours: the group of each,
/// numbered by angle from -pi.
std::vector<double> targets_of(const std::vector<double>& angle, std::size_t targets) {
  std::vector<std::size_t> order(angle.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return angle[a] < angle[b]; });
  std::vector<std::pair<double, std::size_t>> gaps;  // width, and the place after it; the first goes around the end
  for (std::size_t k = 0; k < order.size(); ++k)
    gaps.emplace_back(angle[order[k]] - (k ? angle[order[k - 1]] : angle[order.back()] - 2 * std::numbers::pi), k);
  std::sort(gaps.rbegin(), gaps.rend());
  gaps.resize(std::min(gaps.size(), targets));
  std::vector<double> group(angle.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    const auto before = std::count_if(gaps.begin(), gaps.end(), [&](auto& g) { return g.second <= k; });
    group[order[k]] = static_cast<double>(before ? before - 1 : static_cast<std::ptrdiff_t>(gaps.size()) - 1);
  }
  return group;
}

void load_contdata95(const Files& files, const NoParams&, Recording& r) {
  constexpr double rate_hz = 10;
  constexpr std::size_t kTargets = 8;
  const fs::path path = files("contdata95.mat");
  Eigen::MatrixXd counts = io::read_mat(path, "Y").transpose(), hand = io::read_mat(path, "X").transpose();
  if (hand.rows() != 4)
    throw DataError(path.string(), "X", "4 columns (px, py, vx, vy)", fmt::format("{}", hand.rows()));
  files.same_lines("Y", counts, "X", hand);

  std::vector<double> first_row;
  for (Index t = 0; t < hand.cols(); ++t) {
    bool joint = t == 0;
    for (Index i = 0; i < 2 && !joint; ++i)
      joint = std::abs(hand(2 + i, t) - rate_hz * (hand(i, t) - hand(i, t - 1))) > 1e-6;
    if (joint) first_row.push_back(static_cast<double>(t));
  }
  // the file does not name the targets; where the hand ends does
  std::vector<double> number, onset_s, duration_s, rows, angle;
  for (std::size_t k = 0; k < first_row.size(); ++k) {
    const double next = k + 1 < first_row.size() ? first_row[k + 1] : static_cast<double>(hand.cols());
    number.push_back(static_cast<double>(k));
    onset_s.push_back(frame_time(first_row[k], rate_hz));
    rows.push_back(next - first_row[k]);
    duration_s.push_back(rows.back() / rate_hz);
    const auto last = static_cast<Index>(next) - 1;
    angle.push_back(std::atan2(hand(1, last), hand(0, last)));
  }
  const auto target = targets_of(angle, kTargets);
  for (std::size_t k = 0; k < first_row.size(); ++k)
    r.events.push_back(event(onset_s[k], duration_s[k], "trial", target[k]));
  r.tables.push_back({"trial",
                      {numbers("trial", number), numbers("onset_s", onset_s), numbers("duration_s", duration_s),
                       numbers("first_row", first_row), numbers("rows", rows), numbers("target", target)}});

  const auto names = numbered("channel", counts.rows());
  r.streams.push_back(binned("activity", std::move(counts), rate_hz, names, "channel"));
  r.streams.push_back(binned("kinematics", std::move(hand), rate_hz, {"px", "py", "vx", "vy"}, "position"));
  for (Index i : {2, 3}) r.streams.back().format.parts[0].rows[static_cast<std::size_t>(i)].kind = "velocity";
}

// --- dad_chewie -----------------------------------------------------------------------------------------------------

struct ChewieOptions {
  double row_s = 0.02;
  static constexpr auto fields() {
    return std::tuple{field("row_s", &ChewieOptions::row_s, "s",
                            "Time from row to row, which the source does not state.", 0.001, 10)};
  }
};

void load_chewie(const Files& files, const ChewieOptions& options, Recording& r) {
  const double rate_hz = 1 / options.row_s;
  const auto both = [&](const char* first, const char* second, Index columns, Index& boundary) {
    const Eigen::MatrixXd a = files.csv(first, columns), b = files.csv(second, columns);
    boundary = a.cols();
    Eigen::MatrixXd all(columns, a.cols() + b.cols());
    all << a, b;
    return all;
  };
  Index boundary = 0, other = 0;
  Eigen::MatrixXd spikes = both("spikes_tr.csv", "spikes_te.csv", 71, boundary);
  const auto same = [&](const char* name, const Eigen::MatrixXd& m) {
    files.same_lines("spikes", spikes, name, m);
    if (other != boundary)
      throw DataError(files.set.name, name, fmt::format("{} training rows", boundary), fmt::format("{}", other));
  };
  Eigen::MatrixXd velocity = both("vel_tr.csv", "vel_te.csv", 2, other);
  same("velocity", velocity);
  Eigen::MatrixXd target = both("target_tr.csv", "target_te.csv", 1, other);
  same("target", target);

  // All trials have one length and lie end to end; each piece has whole ones but for its first or last. The files do
  // not tell them apart, but targets change between trials only.
  constexpr Index kTrialRows = 31;
  for (const auto& [first, last] : {std::pair(Index{0}, boundary), std::pair(boundary, spikes.cols())}) {
    Index start = first, change = first + 1;
    while (change < last && target(0, change) == target(0, change - 1)) ++change;
    Index next = first + (change - first - 1) % kTrialRows + 1;
    for (; start < last; start = next, next = start + kTrialRows) {
      const Index stop = std::min(next, last);
      for (Index row = start + 1; row < stop; ++row)
        if (target(0, row) != target(0, start))
          throw DataError(files.set.name, fmt::format("target of row {}", row),
                          fmt::format("that of row {}, as trials have {} rows", start, kTrialRows),
                          fmt::format("{}", target(0, row)));
      r.events.push_back(event(frame_time(static_cast<double>(start), rate_hz),
                               static_cast<double>(stop - start) / rate_hz, "trial", target(0, start)));
    }
  }
  const auto split = static_cast<double>(boundary), end = static_cast<double>(spikes.cols());
  r.events.push_back(event(frame_time(0, rate_hz), split / rate_hz, "train"));
  r.events.push_back(event(frame_time(split, rate_hz), (end - split) / rate_hz, "test"));
  sort_events(r.events);
  r.tables.push_back({"segment",
                      {{"segment", {}, {"train", "test"}},
                       numbers("first_row", {0, split}),
                       numbers("last_row", {split - 1, end - 1})}});
  r.streams.push_back(binned("activity", std::move(spikes), rate_hz, numbered("unit", 71), "unit"));
  r.streams.push_back(binned("kinematics", std::move(velocity), rate_hz, {"vx", "vy"}, "velocity"));
  r.streams.push_back(binned("target", std::move(target), rate_hz, {"target"}, "category"));
  r.streams.back().format.parts[0].levels = numbered("target", 8);
}

// --- hc_wmaze -------------------------------------------------------------------------------------------------------

struct WmazeOptions {
  double bin_s = 0.1;
  double position_window_s = 0.25;
  static constexpr auto fields() {
    return std::tuple{
        field("bin_s", &WmazeOptions::bin_s, "s", "Width of a bin.", 0.001, 100),
        field("position_window_s", &WmazeOptions::position_window_s, "s",
              "A bin's position is the median over this time, or over the bin where that is wider.", 0, 10)};
  }
};

/// Reorders the values.
double median(std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return values.size() % 2 ? *middle : 0.5 * (*middle + *std::max_element(values.begin(), middle));
}

void load_wmaze(const Files& files, const WmazeOptions& options, Recording& r) {
  const double rate_hz = 1 / options.bin_s;
  const Eigen::MatrixXd spikes = files.csv("spikes.csv", 2, true), track = files.csv("position.csv", 3, true),
                        units = files.csv("units.csv", 4, true);
  for (Index k = 0; k < track.cols(); ++k)
    if (!std::isfinite(track(0, k)) || (k > 0 && track(0, k) < track(0, k - 1)))
      throw DataError(files.set.name + "/position.csv", fmt::format("t_s of row {}", k), "a time that does not fall",
                      fmt::format("{}", track(0, k)));
  const double end_s = track.cols() ? track(0, track.cols() - 1) : 0;
  // a spike on the edge of two bins belongs to the later one, whatever 1 / bin_s rounds to
  const auto bin_of = [&](double t) { return static_cast<Index>(std::floor(t * rate_hz + 1e-9)); };
  const Index bins = bin_of(end_s);
  if (bins < 1)
    throw DataError(files.set.name + "/position.csv", "t_s", "at least one bin", fmt::format("{} s", end_s));

  // a unit without spikes (the noise cluster, taken out of the copy) gets no row
  std::set<double> with_spikes;
  for (Index k = 0; k < spikes.cols(); ++k) with_spikes.insert(spikes(0, k));
  std::map<double, Index> row_of;
  std::vector<std::string> names;
  Table table{"units", {numbers("unit", {}), numbers("tetrode", {}), numbers("cluster", {}), numbers("nspikes", {})}};
  for (Index u = 0; u < units.cols(); ++u) {
    if (!with_spikes.contains(units(0, u))) continue;
    row_of[units(0, u)] = static_cast<Index>(names.size());
    names.push_back(fmt::format("unit_{}", units(0, u)));
    for (std::size_t c = 0; c < 4; ++c) table.columns[c].numbers.push_back(units(static_cast<Index>(c), u));
  }
  Eigen::MatrixXd counts = Eigen::MatrixXd::Zero(static_cast<Index>(names.size()), bins);
  for (Index k = 0; k < spikes.cols(); ++k) {
    const auto row = row_of.find(spikes(0, k));
    if (row == row_of.end() || !(spikes(1, k) >= 0))
      throw DataError(files.set.name + "/spikes.csv", fmt::format("row {}", k),
                      "a unit of units.csv and a time from 0 on",
                      fmt::format("unit {} at {} s", spikes(0, k), spikes(1, k)));
    if (const Index b = bin_of(spikes(1, k)); b < bins) counts(row->second, b) += 1;
  }

  Eigen::MatrixXd position(2, bins);
  const double half = std::max(options.bin_s, options.position_window_s) / 2;
  std::vector<double> window;
  Index first = 0, last = 0;
  for (Index b = 0; b < bins; ++b) {
    const double centre = (static_cast<double>(b) + 0.5) * options.bin_s;
    while (first < track.cols() && track(0, first) < centre - half) ++first;
    while (last < track.cols() && track(0, last) < centre + half) ++last;
    for (Index axis = 0; axis < 2; ++axis) {
      window.clear();
      for (Index k = first; k < last; ++k)
        if (std::isfinite(track(1 + axis, k))) window.push_back(track(1 + axis, k));
      position(axis, b) = median(window);
    }
  }

  for (auto [from, to] : {std::pair(0.0, 1000.0), std::pair(2150.0, 3450.0)})
    if (from < end_s) r.events.push_back(event(from, std::min(to, end_s) - from, "run"));
  r.tables.push_back(std::move(table));
  r.streams.push_back(binned("activity", std::move(counts), rate_hz, names, "unit"));
  r.streams.push_back(binned("position", std::move(position), rate_hz, {"x", "y"}, "position", "px"));
}

}  // namespace

std::vector<Loader> bci_loaders() {
  return {loader("flint_run1", load_flint), loader("contdata95", load_contdata95), loader("dad_chewie", load_chewie),
          loader("hc_wmaze", load_wmaze)};
}

}  // namespace percept::data
