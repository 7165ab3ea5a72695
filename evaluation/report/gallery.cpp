#include "evaluation/report/gallery.h"

#include <fmt/format.h>

#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/report/assets.h"
#include "evaluation/report/html.h"
#include "evaluation/report/report.h"

namespace percept::evaluation {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& expected, const std::string& found) {
  throw DataError("gallery", place, expected, found);
}

const Value& need(const Value& table, std::string_view key, const std::string& place) {
  const Value* v = table.is_table() ? table.find(key) : nullptr;
  if (!v || v->is_null()) refuse(place.empty() ? std::string(key) : place + "." + std::string(key), "a value", "none");
  return *v;
}
std::string text(const Value& table, std::string_view key, const std::string& place) {
  const Value& v = need(table, key, place);
  if (!v.is_string()) refuse(place + "." + std::string(key), "a text", "something else");
  return v.as_string();
}
const Value::Array& items(const Value& table, std::string_view key, const std::string& place) {
  const Value& v = need(table, key, place);
  if (!v.is_array()) refuse((place.empty() ? "" : place + ".") + std::string(key), "a list", "something else");
  return v.as_array();
}

/// How many bytes a text in base64 stands for.
std::int64_t decoded_bytes(const std::string& base64) {
  std::int64_t n = static_cast<std::int64_t>(base64.size()) / 4 * 3;
  for (auto c = base64.rbegin(); c != base64.rend() && *c == '='; ++c) --n;
  return n;
}
void require_bytes(const Value& table, std::string_view key, const std::string& place, std::int64_t expected) {
  const auto found = decoded_bytes(text(table, key, place));
  if (found != expected)
    refuse((place.empty() ? "" : place + ".") + std::string(key), fmt::format("{} bytes", expected),
           fmt::format("{}", found));
}
/// A list of indices below `most`.
void require_indices(const Value::Array& list, const std::string& place, std::int64_t most) {
  for (auto& i : list)
    if (!i.is_integer() || i.as_integer() < 0 || i.as_integer() >= most)
      refuse(place, fmt::format("indices below {}", most), to_json(i));
}

void check(const Value& g) {
  text(g, "title", "");
  const auto& shape = items(g, "shape", "");
  if (shape.size() != 2 || !shape[0].is_integer() || !shape[1].is_integer() || shape[0].as_integer() < 1 ||
      shape[1].as_integer() < 1)
    refuse("shape", "[rows, columns]", to_json(need(g, "shape", "")));
  const std::int64_t channels = g.get("channels", 1), pixels = shape[0].as_integer() * shape[1].as_integer();
  if (channels != 1 && channels != 3) refuse("channels", "1 or 3", fmt::format("{}", channels));
  const auto count = std::ssize(items(g, "items", ""));
  require_bytes(g, "truth", "", count * pixels * channels);
  for (auto& i : items(g, "items", "")) text(i, "name", "items");
  if (items(g, "splits", "").empty()) refuse("splits", "at least one", "none");
  for (auto& s : items(g, "splits", "")) {
    text(s, "name", "splits");
    require_indices(items(s, "items", "splits"), "splits.items", count);
  }
  for (auto& m : items(g, "methods", "")) text(m, "name", "methods");
  const Value& measures = need(g, "measures", "");
  if (!measures.find(text(g, "headline", ""))) refuse("headline", "one of the measures", text(g, "headline", ""));
  for (auto& r : items(g, "reconstructions", "")) {
    const std::string place = "reconstructions '" + text(r, "method", "reconstructions") + "'";
    text(r, "split", place);
    const auto& shown = items(r, "items", place);
    const auto n = std::ssize(shown);
    require_indices(shown, place + ".items", count);
    require_bytes(r, "decoded", place, n * pixels * channels);
    if (r.find("sd")) {
      require_bytes(r, "sd", place, n * pixels);
      if (!need(r, "sd_most", place).is_number()) refuse(place + ".sd_most", "a number", "something else");
    }
    if (r.find("samples")) require_bytes(r, "samples", place, n * r.get("draws", 0) * pixels * channels);
    for (auto& [name, values] : need(r, "values", place).as_table()) {
      const auto at = fmt::format("{}.values.{}", place, name);
      if (!measures.find(name)) refuse(at, "one of the measures", "none of that name");
      if (!values.is_array() || std::ssize(values.as_array()) != n)
        refuse(at, fmt::format("{} numbers", n), to_json(values).substr(0, 60));
    }
  }
}

std::string body_of(const Value& g) {
  std::string s = fmt::format("<section class=\"intro\"><h1>{}</h1>", escape(text(g, "title", "")));
  if (const auto d = g.get("description", ""); !d.empty()) s += fmt::format("<p class=\"lead\">{}</p>", escape(d));
  s += "</section>\n";
  std::string warnings;
  for (auto& w : list(g, "warnings")) warnings += fmt::format("<li>{}</li>", escape(w.as_string()));
  if (!warnings.empty())
    s += fmt::format(
        "<section class=\"warnings\" role=\"note\" aria-labelledby=\"warn-h\"><h2 id=\"warn-h\">Read this first</h2>"
        "<ul>{}</ul></section>\n",
        warnings);
  s += R"(<section id="gallery" aria-labelledby="gallery-h"><h2 id="gallery-h">True and reconstructed</h2>
<p class="note keys">Rest the pointer on a reconstruction to see samples of its posterior; open a card for everything. Keys: <kbd>g</kbd> goes to the images, arrows move, <kbd>Enter</kbd> opens, <kbd>s</kbd> sorts, <kbd>Esc</kbd> closes.</p>
<div class="controls" id="controls"></div>
<p class="count" id="count" aria-live="polite"></p>
<ul class="cards" id="cards"></ul>
<p class="empty" id="none" hidden>No image fits this choice.</p>
)";
  if (const auto png = g.get("mosaic", ""); !png.empty())
    s += fmt::format(
        "<noscript><p>Scripts are off: from left to right the true image and each method, one row an image.</p>"
        "<img class=\"mosaic\" alt=\"True images and reconstructions\" src=\"data:image/png;base64,{}\"></noscript>\n",
        escape(png));
  s += "</section>\n";
  if (!list(g, "scores").empty()) s += score_tables(g);
  if (!list(g, "trust").empty())
    s += "<section id=\"trust\" aria-labelledby=\"trust-h\"><h2 id=\"trust-h\">Does the spread tell the error?</h2>"
         "<p class=\"note\">One dot an image. Where the spread of the posterior rises with the error, it can be "
         "trusted to say which reconstructions are wrong.</p><div class=\"two\" id=\"trust-plots\"></div></section>\n";
  if (g.find("brain"))
    s += "<section id=\"brain-section\" aria-labelledby=\"brain-h\"><h2 id=\"brain-h\">The voxels that carry the "
         "prediction</h2><div class=\"tools brain-tools\"><label>Pattern <select id=\"brain-select\"></select></label>"
         "</div><p class=\"note\" id=\"brain-doc\"></p><div class=\"brain\" id=\"brain\"></div></section>\n";
  return s;
}

}  // namespace

std::string render_gallery(const Value& gallery) {
  check(gallery);
  const bool brain = gallery.find("brain") != nullptr;
  Value drawn = Value::table();
  for (const char* key : {"shape", "channels", "truth", "items", "splits", "methods", "measures", "headline",
                          "reconstructions", "trust", "brain"})
    if (const Value* v = gallery.find(key)) drawn[key] = *v;
  const std::string body = body_of(gallery), data = script_json(drawn), title = escape(text(gallery, "title", ""));
  // as in the report: nothing that the gallery says can know the nonce
  const std::string nonce = sha256(body + data).substr(0, 32);
  std::string nav;
  for (const auto& [key, id, name] :
       {std::tuple{"reconstructions", "gallery", "Images"}, std::tuple{"scores", "scores", "Scores"},
        std::tuple{"trust", "trust", "Trust"}, std::tuple{"brain", "brain-section", "Brain"}})
    if (const Value& v = child(gallery, key); !v.is_null() && !(v.is_array() && v.as_array().empty()))
      nav += fmt::format("<a href=\"#{}\">{}</a>", id, name);
  const std::string viewer = brain ? fmt::format("<script nonce=\"{}\">{}</script>", nonce, assets::niivue_js) : "";
  return fill(assets::gallery_html,
              {{"nonce", nonce},
               {"title", title},
               {"nav", nav},
               {"body", body},
               {"data", data},
               {"uplot_css", assets::uplot_css},
               {"uplot_js", assets::uplot_js},
               {"report_css", assets::report_css},
               {"gallery_css", assets::gallery_css},
               {"gallery_js", assets::gallery_js},
               {"brain_scripts", viewer},
               {"brain_credit", brain ? ", brain by NiiVue (BSD-2 licence, © 2021 Niivue)" : ""}});
}

}  // namespace percept::evaluation
