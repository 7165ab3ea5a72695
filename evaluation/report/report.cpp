#include "evaluation/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/report/assets.h"
#include "evaluation/report/html.h"

namespace percept::evaluation {

namespace {

std::string bytes(double n) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t u = 0;
  for (; n >= 1024 && u + 1 < std::size(units); ++u) n /= 1024;
  return readable(n) + " " + units[u];
}

std::string minus(const std::string& s) { return s[0] == '-' ? "−" + s.substr(1) : s; }

/// A scalar as text; `key` gives its unit away.
std::string shown(const Value& v, std::string_view key = "") {
  switch (v.type()) {
    case Value::Type::null:
      return "–";
    case Value::Type::boolean:
      return v.as_bool() ? "yes" : "no";
    case Value::Type::integer:
    case Value::Type::real:
      if (key.ends_with("_bytes") || key == "bytes") return bytes(v.as_number());
      if (v.is_integer()) return fmt::format("{}", v.as_integer());
      return minus(fmt::format("{:.6g}", v.as_number())) + (key.ends_with("_s") || key == "seconds" ? " s"
                                                            : key.ends_with("_hz")                  ? " Hz"
                                                                                                    : "");
    case Value::Type::string:
      return v.as_string();
    case Value::Type::array: {
      std::string s;
      for (auto& i : v.as_array()) s += (s.empty() ? "" : ", ") + (i.is_array() ? "[" + shown(i) + "]" : shown(i));
      return s;
    }
    case Value::Type::table: {
      std::string s;
      for (auto& [k, i] : v.as_table()) s += fmt::format("{}{} = {}", s.empty() ? "" : ", ", k, shown(i, k));
      return s;
    }
  }
  return "";
}
std::string cell(const Value& v, std::string_view key = "") { return escape(shown(v, key)); }

/// A score: four decimals where its unit makes its size known, else four significant digits.
std::string score_number(const Value& v, const std::string& unit) {
  if (!v.is_number()) return "–";
  const double d = v.as_number();
  if (!std::isfinite(d) || std::abs(d) >= 10 || unit == "target") return readable(d);
  return minus(fmt::format("{:.4f}", std::abs(d) < 5e-5 ? 0.0 : d));
}
std::string p_number(const Value& v) { return v.is_number() ? fmt::format("{:.2g}", v.as_number()) : "–"; }

std::string interval(const Value& v, const std::string& unit) {
  const Value &low = child(v, "low"), &high = child(v, "high");
  return low.is_number() && high.is_number()
             ? fmt::format("[{}, {}]", score_number(low, unit), score_number(high, unit))
             : "";
}

/// Value, interval, the outputs one by one; or why there is none.
std::string metric_cell(const Value& m, const std::string& unit) {
  std::string s;
  if (child(m, "value").is_number()) {
    s = fmt::format("<span class=\"v\">{}</span>", score_number(child(m, "value"), unit));
    if (const Value& sd = child(m, "sd"); sd.is_number())
      s += fmt::format("<span class=\"sd\" title=\"standard deviation over the items\">± {}</span>",
                       score_number(sd, unit));
    if (auto i = interval(m, unit); !i.empty()) s += "<span class=\"ci\">" + i + "</span>";
  } else {
    s = fmt::format("<span class=\"v\">–</span><br><span class=\"why\">{}</span>",
                    escape(m.get("reason", "not computed")));
  }
  if (list(m, "outputs").size() > 1)
    for (auto& o : list(m, "outputs"))
      s += fmt::format(
          "<span class=\"outs\">{} {} {}</span>", escape(o.get("name", "")),
          child(o, "value").is_number() ? score_number(child(o, "value"), unit) : "–: " + escape(o.get("reason", "")),
          interval(o, unit));
  return s;
}

std::string table_open(const std::string& label, const std::string& cls = "") {
  return fmt::format("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table class=\"{}\">",
                     escape(label), cls);
}
constexpr const char* kTableClose = "</tbody></table></div>\n";

/// Rows of keys and values; tables inside become groups of their own.
std::string key_values(const Value& table, const std::string& label) {
  std::string rows, groups;
  for (auto& [key, v] : table.as_table()) {
    const bool tables = v.is_array() && v.size() > 0 &&
                        std::all_of(v.as_array().begin(), v.as_array().end(), [](auto& i) { return i.is_table(); });
    if (v.is_table() && v.size() > 0) {
      groups += fmt::format("<details><summary>{}</summary>{}</details>", escape(key), key_values(v, key));
    } else if (tables) {
      for (std::size_t i = 0; i < v.size(); ++i)
        groups += fmt::format("<details><summary>{} {}</summary>{}</details>", escape(key), i + 1,
                              key_values(v.as_array()[i], key));
    } else {
      const bool digest = v.is_string() && v.as_string().size() >= 40 && v.as_string().find(' ') == std::string::npos;
      rows += fmt::format("<tr><th scope=\"row\">{}</th><td{}>{}</td></tr>", escape(key),
                          digest ? " class=\"mono\"" : "", cell(v, key));
    }
  }
  if (!rows.empty()) rows = table_open(label, "kv") + "<tbody>" + rows + kTableClose;
  return rows + groups;
}

std::string section(const std::string& id, const std::string& heading, const std::string& body,
                    const std::string& cls = "") {
  return fmt::format(
      "<section id=\"{0}\" class=\"{3}\" aria-labelledby=\"{0}-h\"><h2 id=\"{0}-h\">{1}</h2>\n{2}</section>\n", id,
      escape(heading), body, cls);
}
std::string note(const std::string& text) {
  return text.empty() ? "" : fmt::format("<p class=\"note\">{}</p>", escape(text));
}

std::string title_of(const Value& score) {
  std::string t = score.get("name", "");
  if (const auto split = score.get("split", ""); !split.empty()) t += (t.empty() ? "" : ", ") + ("split " + split);
  return t.empty() ? "Scores" : t;
}

std::string intro(const Value& report) {
  std::string s = fmt::format("<section class=\"intro\"><h1>{}</h1>", escape(report.at("title").as_string()));
  if (auto d = report.get("description", ""); !d.empty()) s += fmt::format("<p class=\"lead\">{}</p>", escape(d));
  if (auto c = report.get("created", ""); !c.empty()) s += fmt::format("<p class=\"when\">{}</p>", escape(c));
  // the first metrics of the first score, each beside what the controls reach
  std::string tiles;
  if (!list(report, "scores").empty()) {
    const Value& score = list(report, "scores")[0];
    const auto& metrics = list(score, "metrics");
    for (std::size_t i = 0; i < std::min<std::size_t>(metrics.size(), 4); ++i) {
      const Value& m = metrics[i];
      std::string against;
      for (auto& c : list(score, "controls"))
        if (c.get("kind", "control") == "control")
          for (auto& cm : list(c, "metrics"))
            if (cm.get("name", "") == m.get("name", "") && child(cm, "value").is_number())
              against += fmt::format("{}{} {}", against.empty() ? "" : " · ", escape(c.get("name", "")),
                                     score_number(cm.at("value"), m.get("unit", "1")));
      if (const Value& p = child(score, "p"); p.get("metric", "") == m.get("name", "") && child(p, "value").is_number())
        against += fmt::format("{}p = {}", against.empty() ? "" : " · ", p_number(p.at("value")));
      tiles += fmt::format(
          "<li><span class=\"what\">{}{} <span aria-hidden=\"true\">{}</span></span><span class=\"big\">{}</span><span "
          "class=\"ci\">{}</span>"
          "<span class=\"against\">{}</span></li>",
          escape(m.get("name", "")),
          m.get("unit", "1") == "1" || m.get("unit", "1") == "target" ? "" : " [" + escape(m.get("unit", "")) + "]",
          m.get("lower_is_better", true) ? "↓" : "↑", score_number(child(m, "value"), m.get("unit", "1")),
          interval(m, m.get("unit", "1")), against.empty() ? "no control was scored with this metric" : against);
    }
    if (!tiles.empty()) s += "<ul class=\"tiles\" aria-label=\"Main scores\">" + tiles + "</ul>";
  }
  return s + "</section>\n";
}

std::string warnings(const Value& report) {
  std::string items;
  for (auto& w : list(report, "warnings")) items += fmt::format("<li>{}</li>", escape(w.as_string()));
  return items.empty() ? ""
                       : fmt::format(
                             "<section class=\"warnings\" role=\"note\" aria-labelledby=\"warn-h\"><h2 "
                             "id=\"warn-h\">Read this first</h2><ul>{}</ul></section>\n",
                             items);
}

std::string scores(const Value& report) {
  std::string s =
      "<p class=\"note\">Beside every score: what can be had without any brain activity, and what is left once that is "
      "taken out. "
      "Square brackets are 95 % intervals.</p>";
  for (auto& score : list(report, "scores")) {
    s += fmt::format("<h3>{}</h3>", escape(title_of(score))) + table_open(title_of(score), "scores") +
         "<thead><tr><th scope=\"col\">what was scored</th>";
    const auto& metrics = list(score, "metrics");
    for (auto& m : metrics)
      s += fmt::format("<th scope=\"col\" class=\"n\" title=\"{}\">{} <span aria-label=\"{}\">{}</span></th>",
                       escape(m.get("doc", "")), escape(m.get("name", "")),
                       m.get("lower_is_better", true) ? "lower is better" : "higher is better",
                       m.get("lower_is_better", true) ? "↓" : "↑");
    s += "<th scope=\"col\" class=\"n\">p</th></tr></thead><tbody>";
    s += fmt::format("<tr class=\"model\"><th scope=\"row\">{}</th>", escape(score.get("model", "model")));
    for (auto& m : metrics) s += "<td class=\"n\">" + metric_cell(m, m.get("unit", "1")) + "</td>";
    const Value& p = child(score, "p");
    s += fmt::format("<td class=\"n\">{}</td></tr>",
                     child(p, "value").is_number()
                         ? fmt::format("<span class=\"v\">{}</span><span class=\"ci\">by {}</span>",
                                       p_number(p.at("value")), escape(p.get("metric", "")))
                         : "<span class=\"why\">not computed</span>");
    for (auto& c : list(score, "controls")) {
      const auto kind = c.get("kind", "control");
      s += fmt::format("<tr class=\"control\"><th scope=\"row\">{} <span class=\"pill\">{}</span></th>",
                       escape(c.get("name", "")),
                       kind == "removed" ? "taken out"
                       : kind == "null"  ? "shuffled"
                                         : "no brain");
      if (const auto absent = c.get("absent", ""); !absent.empty()) {
        s += fmt::format("<td colspan=\"{}\"><span class=\"why\">{}</span></td></tr>", metrics.size() + 1,
                         escape(absent));
        continue;
      }
      for (auto& m : metrics) {
        const Value* found = nullptr;
        for (auto& cm : list(c, "metrics"))
          if (cm.get("name", "") == m.get("name", "")) found = &cm;
        s += found ? "<td class=\"n\">" + metric_cell(*found, m.get("unit", "1")) + "</td>"
                   : "<td class=\"n\"><span class=\"why\">–</span></td>";
      }
      s += "<td class=\"n\"></td></tr>";
    }
    s += kTableClose;
    if (list(score, "controls").empty())
      s += "<p><span class=\"pill bad\">No control was scored</span> Nobody can say from this table how much of the "
           "score is the brain's.</p>";
    if (!metrics.empty()) {
      const auto missing = metrics[0].get("missing", std::int64_t{0});
      s += note(fmt::format(
          "{} frames scored{}. {}.", metrics[0].get("frames", std::int64_t{0}),
          missing > 0 ? fmt::format(", {} left out because the truth or the decoded value was missing", missing) : "",
          metrics[0].get("interval", "")));
      std::string definitions;
      for (auto& m : metrics)
        definitions += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(m.get("name", "")),
                                   escape(m.get("doc", "")));
      for (auto& c : list(score, "controls"))
        if (!c.get("doc", "").empty())
          definitions += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(c.get("name", "")),
                                     escape(c.get("doc", "")));
      s += "<details><summary>What the numbers mean</summary>" + table_open("Definitions", "kv") + "<tbody>" +
           definitions + kTableClose + "</details>";
    }
    s += note(p.get("method", ""));
  }
  return section("scores", "Scores, beside their controls", s);
}

std::string splits(const Value& report) {
  std::string s =
      "<p><span class=\"key\"><i class=\"train\"></i>training frames</span><span class=\"key\"><i "
      "class=\"test\"></i>test frames</span>"
      "<span class=\"key\"><i></i>not used</span></p>";
  for (auto& split : list(report, "split")) {
    s += fmt::format("<h3>{} <span class=\"pill\">by {}</span></h3>", escape(split.get("name", "")),
                     escape(split.get("use", "")));
    double end = std::max(1.0, split.get("frames", 1.0));
    for (auto& f : list(split, "folds"))
      for (const char* part : {"train", "test"})
        for (auto& r : list(f, part)) end = std::max(end, r.as_array().at(1).as_number() + 1);
    s += table_open("Folds") +
         "<thead><tr><th scope=\"col\">fold</th><th scope=\"col\" class=\"n\">training frames</th><th scope=\"col\" "
         "class=\"n\">test frames</th>"
         "<th scope=\"col\">where they lie</th></tr></thead><tbody>";
    for (auto& f : list(split, "folds")) {
      s += fmt::format(
          "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td><svg class=\"strip\" "
          "viewBox=\"0 0 1000 26\" "
          "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"training and test frames along the recording\">",
          escape(f.get("name", "")), cell(child(f, "train_frames")), cell(child(f, "test_frames")));
      for (const char* part : {"train", "test"})
        for (auto& r : list(f, part)) {
          const double first = r.as_array().at(0).as_number(), last = r.as_array().at(1).as_number();
          s += fmt::format("<rect class=\"{}\" x=\"{:.2f}\" y=\"0\" width=\"{:.2f}\" height=\"26\"/>", part,
                           1000 * first / end, std::max(1.5, 1000 * (last - first + 1) / end));
        }
      s += "</svg></td></tr>";
    }
    s += kTableClose;
    std::string words = "Stated before anything was fitted: " + shown(child(split, "parameters")) + ".";
    if (const auto memory = split.get("memory_frames", std::int64_t{0}); memory > 0)
      words += fmt::format(" The stages before the fitted one look {} frames back.", memory);
    s += note(words);
  }
  return section("split", "Split", s);
}

std::string data_set(const Value& report) {
  const Value& data = child(report, "data");
  std::string rows;
  for (const char* key : {"title", "name", "licence", "citation", "url", "note"})
    if (const Value& v = child(data, key); !v.is_null())
      rows += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", key, cell(v, key));
  std::string s = table_open("Data set", "kv") + "<tbody>" + rows + kTableClose;
  for (auto& r : list(data, "recordings"))
    s += fmt::format("<details><summary>Recording {}</summary>{}</details>", escape(r.get("name", "")),
                     key_values(r, "Recording"));
  return section("data", "Data set", s);
}

std::string trajectories(const Value& report) {
  std::string s =
      "<noscript><p class=\"note\">The plots need scripts; every number is also in the tables and in the run's "
      "files.</p></noscript>";
  const auto& all = list(report, "trajectories");
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (const auto name = all[i].get("name", ""); !name.empty()) s += fmt::format("<h3>{}</h3>", escape(name));
    s += note(all[i].get("reduced", ""));
    s += fmt::format("<div class=\"plots\" id=\"trajectory-{}\"></div>", i);
    if (all[i].contains("path"))
      s += fmt::format("<h3>In the plane</h3><div class=\"plots plane\" id=\"path-{}\"></div>", i);
  }
  return section("decoded", "Decoded against true", s);
}

std::string images(const Value& report) {
  std::string s =
      "<noscript><p class=\"note\">The images need scripts; the gallery of the run has some without.</p></noscript>";
  const auto& all = list(report, "images");
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string rows;
    for (auto& r : list(all[i], "rows")) rows += (rows.empty() ? "" : ", ") + r.get("name", "");
    const auto shown = all[i].get("count", std::int64_t{0}), of = all[i].get("of", shown);
    s += fmt::format("<h3>{}</h3>", escape(all[i].get("name", "")));
    s += note(fmt::format("From top to bottom: {}. {}", rows,
                          shown < of ? fmt::format("The first {} of {} items.", shown, of)
                                     : fmt::format("All {} test items, in the order of their keys.", of)));
    s += fmt::format("<div class=\"mosaic\" id=\"images-{}\" role=\"img\" aria-label=\"{}\"></div>", i, escape(rows));
  }
  return section("images", "Images, true and decoded", s);
}

std::string trust(const Value& report) {
  std::string s = note(
      "Does a reconstruction's own doubt tell its error? Spread: the standard deviation that the decoder gives, "
      "averaged "
      "over the values of an item; error: root of the mean squared error.");
  const auto& all = list(report, "trust");
  for (std::size_t i = 0; i < all.size(); ++i) {
    s += fmt::format("<h3>{}</h3><div class=\"two\"><div class=\"plots\" id=\"trust-{}\"></div><div>",
                     escape(all[i].get("name", "")), i);
    s += table_open("Trust") +
         "<thead><tr><th scope=\"col\">doubt</th><th scope=\"col\" class=\"n\">rank correlation with the error</th><th "
         "scope=\"col\" class=\"n\">p</th></tr></thead><tbody>";
    for (const char* doubt : {"spread", "hallucination"}) {
      const Value& told = child(all[i], doubt);
      if (!told.is_table()) continue;
      s += fmt::format(
          "<tr><th scope=\"row\">{}</th><td class=\"n\"><span class=\"v\">{}</span> <span "
          "class=\"ci\">{}</span></td><td class=\"n\">{}</td></tr>",
          doubt, score_number(child(told, "rank_correlation"), "1"), interval(told, "1"), p_number(child(told, "p")));
    }
    s += kTableClose;
    if (const Value& ratio = child(all[i], "error_to_spread"); ratio.is_number())
      s += note(
          fmt::format("Mean squared error over mean variance, of all values: {}; 1 would be right, more means that "
                      "the spread is too small.",
                      readable(ratio.as_number())));
    s += "</div></div>";
  }
  return section("trust", "Trust", s);
}

std::string calibrations(const Value& report) {
  std::string s =
      "<p class=\"note\">Does the posterior covariance tell the truth: does its 90 % ellipsoid hold 90 % of the test "
      "frames?</p>";
  const auto& all = list(report, "calibration");
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Value& c = all[i];
    const bool good = c.get("calibrated", false);
    const std::string verdict = c.get("verdict", "unknown");
    s += fmt::format("<h3>{} <span class=\"pill {}\">{}</span></h3>", escape(c.get("name", "")), good ? "good" : "bad",
                     escape(good ? verdict : "not calibrated: " + verdict));
    if (list(c, "levels").empty()) continue;  // nothing to draw
    s += fmt::format("<div class=\"two\"><div class=\"plots\" id=\"calibration-{}\"></div><div>", i);
    s += table_open("Coverage") +
         "<thead><tr><th scope=\"col\">ellipsoid</th><th scope=\"col\" class=\"n\">frames inside</th><th scope=\"col\" "
         "class=\"n\">95 % interval</th></tr></thead><tbody>";
    auto percent = [](const Value& v) {
      return v.is_number() ? fmt::format("{:.1f} %", 100 * v.as_number()) : std::string("–");
    };
    for (auto& l : list(c, "levels"))
      s += fmt::format(
          "<tr><th scope=\"row\">{:g} %</th><td class=\"n\"><span class=\"v\">{}</span></td><td class=\"n\">{} to "
          "{}</td></tr>",
          100 * l.at("nominal").as_number(), percent(child(l, "observed")), percent(child(l, "low")),
          percent(child(l, "high")));
    s += kTableClose;
    if (const Value& d = child(c, "mean_distance2"); d.is_number()) {
      const Value &low = child(c, "distance2_low"), &high = child(c, "distance2_high");
      s += note(fmt::format("Mean squared Mahalanobis distance {}{}; {} would be right.", readable(d.as_number()),
                            low.is_number() && high.is_number()
                                ? fmt::format(" [{}, {}]", readable(low.as_number()), readable(high.as_number()))
                                : "",
                            shown(child(c, "outputs"))));
    }
    s +=
        note(fmt::format("{} frames, {} left out as missing, {} covariances not positive definite. Called calibrated "
                         "when the 90 % ellipsoid holds 85 to 95 %. {}.",
                         c.get("frames", std::int64_t{0}), c.get("missing", std::int64_t{0}),
                         c.get("bad_covariances", std::int64_t{0}), c.get("method", "")));
    s += "</div></div>";
  }
  return section("calibration", "Calibration", s);
}

std::string priors(const Value& report) {
  std::string s = note(
      "Fitted before any fold on images that are not the recording's; an image that equals one to be decoded is "
      "refused.");
  s += table_open("Priors") +
       "<thead><tr><th scope=\"col\">prior</th><th scope=\"col\">stage</th><th scope=\"col\" "
       "class=\"n\">images</th><th scope=\"col\">from</th><th scope=\"col\">labels</th><th "
       "scope=\"col\">parameters</th><th scope=\"col\">digest</th></tr></thead><tbody>";
  for (auto& p : list(report, "priors")) {
    std::string from;
    for (auto& source : list(p, "sources"))
      from +=
          fmt::format("{}{} ({})", from.empty() ? "" : ", ", source.get("name", ""), shown(child(source, "images")));
    s += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td><td "
        "class=\"mono\">{}</td></tr>",
        escape(p.get("name", "")), escape(p.get("use", "")), cell(child(p, "images")), escape(from),
        p.contains("labels") ? cell(p.at("labels")) : "all", cell(child(p, "params")),
        escape(p.get("digest", "").substr(0, 12)));
  }
  return section("priors", "Priors", s + kTableClose);
}

/// Best first; then those that were given up, the longest in the race first; then those that failed.
std::vector<const Value*> by_merit(const Value& search) {
  const bool lower = search.get("lower_is_better", true);
  auto merit = [&](const Value& row) {
    const int group = row.contains("failed") ? 2 : row.contains("given_up") ? 1 : 0;
    const Value& v = child(row, "value");
    const double value = v.is_number() ? (lower ? v.as_number() : -v.as_number()) : 0;
    return std::tuple(group, group == 1 ? -row.get("folds", std::int64_t{0}) : 0, value);
  };
  std::vector<const Value*> rows;
  for (auto& row : list(search, "rows")) rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(), [&](auto* a, auto* b) { return merit(*a) < merit(*b); });
  return rows;
}

std::string one_search(const Value& search, const std::string& label) {
  constexpr std::size_t kShown = 25;  // the others are folded away
  const auto rows = by_merit(search);
  std::vector<std::string> keys;
  std::size_t failed = 0, given_up = 0;
  std::set<std::int64_t> frames;
  for (auto* row : rows) {
    failed += row->contains("failed");
    given_up += row->contains("given_up");
    if (!row->contains("failed") && !row->contains("given_up")) frames.insert(row->get("frames", std::int64_t{0}));
    for (auto& [key, v] : child(*row, "params").as_table())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  const auto metric = search.get("metric", "score"), method = search.get("method", "");
  const auto folds = search.get("folds", std::int64_t{0});
  const std::string open = [&] {
    std::string head = table_open(label) + "<thead><tr>";
    for (auto& k : keys) head += fmt::format("<th scope=\"col\">{}</th>", escape(k));
    head += fmt::format("<th scope=\"col\" class=\"n\">{}</th>", escape(metric));
    if (given_up) head += "<th scope=\"col\" class=\"n\">inner folds</th>";
    if (frames.size() > 1) head += "<th scope=\"col\" class=\"n\">frames scored</th>";
    return head + "<th scope=\"col\"></th></tr></thead><tbody>";
  }();
  auto line = [&](const Value& row) {
    const bool chosen = row.get("chosen", false);
    std::string s = chosen ? "<tr class=\"chosen\">" : "<tr>";
    for (auto& k : keys) s += fmt::format("<td>{}</td>", cell(child(child(row, "params"), k)));
    s += fmt::format("<td class=\"n\"><span class=\"v\">{}</span></td>", score_number(child(row, "value"), "1"));
    if (given_up) s += fmt::format("<td class=\"n\">{} of {}</td>", row.get("folds", std::int64_t{0}), folds);
    if (frames.size() > 1) s += fmt::format("<td class=\"n\">{}</td>", row.get("frames", std::int64_t{0}));
    if (chosen) s += "<td><span class=\"pill good\">chosen</span></td>";
    else if (const auto why = row.get("failed", ""); !why.empty())
      s += fmt::format("<td><span class=\"pill bad\">failed</span> <span class=\"why\">{}</span></td>", escape(why));
    else if (const auto why_not = row.get("given_up", ""); !why_not.empty())
      s += fmt::format("<td><span class=\"pill\">given up</span> <span class=\"why\">{}</span></td>", escape(why_not));
    else s += "<td></td>";
    return s + "</tr>";
  };
  auto table = [&](std::size_t first, std::size_t end) {
    std::string s = open;
    for (std::size_t i = first; i < end; ++i) s += line(*rows[i]);
    return s + kTableClose;
  };
  std::string counts = fmt::format("{} candidates", rows.size());
  if (given_up) counts += fmt::format(", {} given up before the last fold", given_up);
  if (failed) counts += fmt::format(", {} failed", failed);
  std::string s = note(fmt::format(
      "{}{}. Chosen by {} ({} is better) over the frames of {} inner folds of the training part only.{}", counts,
      method == "random" ? ", drawn at random" : "", metric, search.get("lower_is_better", true) ? "lower" : "higher",
      folds, frames.size() > 1 ? " Not all were scored on the same frames: a missing value leaves a frame out." : ""));
  s += table(0, std::min(kShown, rows.size()));
  if (rows.size() > kShown)
    s += fmt::format("<details><summary>{} more</summary>{}</details>", rows.size() - kShown,
                     table(kShown, rows.size()));
  return s;
}

std::string search(const Value& report) {
  std::string s;
  const auto& all = list(report, "search");
  for (auto& one : all) {
    const auto fold = one.get("fold", "");
    std::string name = one.get("split", "");
    if (!fold.empty() && fold != name) name += (name.empty() ? "" : ", ") + fold;
    if (all.size() > 1) s += fmt::format("<h3>{}</h3>", escape(name));
    s += one_search(one.at("search"), name.empty() ? "Search" : "Search, " + name);
  }
  return section("search", "Search", s);
}

std::string models(const Value& report) {
  std::string s;
  if (!list(report, "models").empty()) {
    s += table_open("Fitted models") +
         "<thead><tr><th scope=\"col\">node</th><th scope=\"col\">stage</th><th scope=\"col\" class=\"n\">training "
         "frames</th><th scope=\"col\">parameters</th>"
         "<th scope=\"col\">counted</th><th scope=\"col\" class=\"n\">time</th><th "
         "scope=\"col\">digest</th></tr></thead><tbody>";
    for (auto& m : list(report, "models"))
      s += fmt::format(
          "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td "
          "class=\"n\">{}</td><td class=\"mono\">{}</td></tr>",
          escape(m.get("node", "")), escape(m.get("use", "")), cell(child(m, "frames")), cell(child(m, "params")),
          cell(child(m, "counters")), cell(child(m, "seconds"), "seconds"), escape(m.get("digest", "").substr(0, 12)));
    s += kTableClose;
  }
  if (const Value& counters = child(report, "counters"); counters.is_table() && counters.size() > 0)
    s += "<h3>Counted on the way</h3>" + key_values(counters, "Counters");
  return section("models", "Fitted models", s);
}

std::string losses(const Value& report) {
  std::string s;
  for (std::size_t i = 0; i < list(report, "losses").size(); ++i)
    s += fmt::format("<div class=\"plots\" id=\"loss-{}\"></div>", i);
  return section("losses", "Training", s);
}

std::string graph(const Value& report) {
  std::string s = table_open("Graph") +
                  "<thead><tr><th scope=\"col\">node</th><th scope=\"col\">stage</th><th scope=\"col\">from</th><th "
                  "scope=\"col\">one frame</th><th scope=\"col\" class=\"n\">rate</th>"
                  "<th scope=\"col\" class=\"n\">latency</th><th scope=\"col\" class=\"n\">memory</th><th "
                  "scope=\"col\">fitted</th></tr></thead><tbody>";
  for (auto& n : list(report, "graph")) {
    const Value &rate = child(n, "rate_hz"), &memory = child(n, "memory_frames");
    std::string looks = cell(memory);
    if (memory.is_integer())
      looks = memory.as_integer() == -1   ? "whole recording"
              : memory.as_integer() == -2 ? "fading"
                                          : fmt::format("{} frames", memory.as_integer());
    s += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{} {}</td><td class=\"n\">{}</td><td "
        "class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
        escape(n.get("name", "")), escape(n.get("use", "")), cell(child(n, "from")), cell(child(n, "shape")),
        cell(child(n, "scalar")),
        rate.is_number() && rate.as_number() > 0 ? readable(rate.as_number()) + " Hz" : "items",
        cell(child(n, "latency_s"), "latency_s"),
        looks + (n.contains("reset") ? escape(", anew at each '" + n.get("reset", "") + "'") : ""),
        cell(child(n, "fit")));
  }
  return section("graph", "Graph", s + kTableClose);
}

std::string provenance(const Value& report) {
  std::string s;
  if (const auto rerun = report.get("rerun", ""); !rerun.empty())
    s += fmt::format("<p>To repeat this run, bit for bit on the same machine:</p><pre><code>{}</code></pre>",
                     escape(rerun));
  if (const Value& p = child(report, "provenance"); p.is_table()) s += key_values(p, "Provenance");
  return section("provenance", "Provenance", s);
}

struct Section {
  const char* key;
  const char* nav;
  const char* id;
  std::string (*render)(const Value&);
};
constexpr Section kSections[] = {{"scores", "Scores", "scores", scores},
                                 {"images", "Images", "images", images},
                                 {"trust", "Trust", "trust", trust},
                                 {"trajectories", "Decoded", "decoded", trajectories},
                                 {"calibration", "Calibration", "calibration", calibrations},
                                 {"split", "Split", "split", splits},
                                 {"data", "Data", "data", data_set},
                                 {"priors", "Priors", "priors", priors},
                                 {"search", "Search", "search", search},
                                 {"models", "Models", "models", models},
                                 {"losses", "Training", "losses", losses},
                                 {"graph", "Graph", "graph", graph},
                                 {"provenance", "Provenance", "provenance", provenance}};

bool present(const Value& report, std::string_view key) {
  const Value& v = child(report, key);
  if (key == "models" && child(report, "counters").size() > 0) return true;
  if (key == "provenance" && report.contains("rerun")) return true;
  return (v.is_array() || v.is_table()) ? v.size() > 0 : !v.is_null();
}

/// Errors of Value's getters carry no place: the section is added here.
std::string placed(const char* key, const std::function<std::string()>& render) {
  try {
    return render();
  } catch (const DataError&) {
    throw;
  } catch (const Error& e) {
    throw DataError("report", key, "a section as evaluation/report/report.h describes it", e.what());
  } catch (const std::out_of_range&) {
    throw DataError("report", key, "a section as evaluation/report/report.h describes it", "a range without two ends");
  }
}

}  // namespace

std::string readable(double v) {
  if (std::isnan(v)) return "–";
  if (std::isinf(v)) return v > 0 ? "∞" : "−∞";
  const double size = std::abs(v);
  std::string s;
  if (size == 0) s = "0";
  else if (size >= 1e6 || size < 1e-4) s = fmt::format("{:.3e}", v);
  else if (size >= 999.95) s = fmt::format("{:.0f}", v);
  else s = fmt::format("{:#.4g}", v);
  const auto point = s.find('.');
  if (s.find('e') == std::string::npos && point != std::string::npos && v == std::floor(v)) s.erase(point);
  return minus(s);
}

std::string score_tables(const Value& report) { return scores(report); }

std::string render_report(const Value& report) {
  if (!report.is_table() || !child(report, "title").is_string()) throw DataError("report", "title", "a text", "none");
  std::string body = placed("scores", [&] { return intro(report); }), nav;
  body += placed("warnings", [&] { return warnings(report); });
  for (auto& s : kSections) {
    if (!present(report, s.key)) continue;
    body += placed(s.key, [&] { return s.render(report); });
    nav += fmt::format("<a href=\"#{}\">{}</a>", s.id, s.nav);
  }
  Value plotted = Value::table();
  for (const char* key : {"images", "trust", "trajectories", "calibration", "losses"})
    plotted[key] = Value::array(list(report, key));
  const std::string data = script_json(plotted), title = escape(report.at("title").as_string());
  // what the report says cannot know the nonce, so nothing in it can run even if it were not escaped
  const std::string nonce = sha256(body + data).substr(0, 32);
  return fill(assets::page_html, {{"nonce", nonce},
                                  {"title", title},
                                  {"nav", nav},
                                  {"body", body},
                                  {"data", data},
                                  {"uplot_css", assets::uplot_css},
                                  {"uplot_js", assets::uplot_js},
                                  {"report_css", assets::report_css},
                                  {"report_js", assets::report_js}});
}

}  // namespace percept::evaluation
