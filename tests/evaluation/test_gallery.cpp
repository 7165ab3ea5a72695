#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/gallery.h"
#include "evaluation/report/gallery.h"
#include "evaluation/report/html.h"
#include "io/store.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::evaluation {
namespace {

using percept::testing::message_of;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kItems = 12, kPixels = 2 * 3;

std::string pixels(int images, int first) {
  std::string bytes;
  for (int i = 0; i < images * kPixels; ++i) bytes.push_back(static_cast<char>((first + 7 * i) % 256));
  return base64(bytes);
}

/// A NIfTI-1 file of 4 x 4 x 4 floats: the field of 348 bytes, an empty extension, the samples.
std::string tiny_nifti() {
  std::string file(352 + 64 * 4, '\0');
  auto put = [&](std::size_t at, auto v) { std::memcpy(file.data() + at, &v, sizeof v); };
  put(0, std::int32_t{348});
  for (const auto& [at, v] :
       {std::pair{40, 3}, {42, 4}, {44, 4}, {46, 4}, {48, 1}, {50, 1}, {52, 1}, {54, 1}, {70, 16}, {72, 32}, {254, 1}})
    put(static_cast<std::size_t>(at), static_cast<std::int16_t>(v));
  for (const std::size_t at : {76u, 80u, 84u, 88u}) put(at, 1.0F);
  put(108, 352.0F);
  put(112, 1.0F);
  for (int axis = 0; axis < 3; ++axis) put(280 + 20 * static_cast<std::size_t>(axis), 2.0F);
  std::memcpy(file.data() + 344, "n+1", 4);
  for (std::size_t i = 0; i < 64; ++i) put(352 + 4 * i, static_cast<float>(i) - 20);
  return base64(file);
}

/// Two methods and two splits; `pcc` of "ridge" rises with the item, that of "posterior" falls.
Value made_up() {
  Value g = Value::object({{"title", "Digits <b>& co</b>"}, {"description", "made up"}, {"headline", "pcc"}});
  g["warnings"] = Value::array({"rights are not established"});
  g["shape"] = Value::array({2, 3});
  g["truth"] = pixels(kItems, 0);
  g["items"] = Value::array();
  Value every = Value::array(), some = Value::array({10, 11});
  for (int i = 0; i < kItems; ++i) {
    g["items"].push_back(Value::object({{"name", "image " + std::to_string(i)}, {"label", i % 3 ? "6" : "9"}}));
    every.push_back(i);
  }
  g["splits"] = Value::array(
      {Value::object({{"name", "tenfold"}, {"items", every}}), Value::object({{"name", "official"}, {"items", some}})});
  g["methods"] = Value::array({Value::object({{"name", "ridge"}, {"doc", "best for squared error"}}),
                               Value::object({{"name", "posterior"}, {"doc", "the mean of its samples"}})});
  g["measures"] = Value::object(
      {{"pcc",
        Value::object({{"label", "PCC"}, {"doc", "correlation of pixels"}, {"higher", true}, {"kind", "metric"}})},
       {"spread", Value::object({{"label", "spread"}, {"doc", "mean sd"}, {"higher", false}, {"kind", "trust"}})}});
  g["reconstructions"] = Value::array();
  for (const bool posterior : {false, true})
    for (auto& split : g["splits"].as_array()) {
      Value pcc = Value::array(), spread = Value::array();
      for (auto& item : split.at("items").as_array()) {
        const auto i = static_cast<double>(item.as_integer());
        pcc.push_back(posterior ? 1 - i / 100 : i / 100);
        spread.push_back(i);
      }
      const int n = static_cast<int>(split.at("items").size());
      Value r = Value::object({{"method", posterior ? "posterior" : "ridge"},
                               {"split", split.at("name")},
                               {"items", split.at("items")},
                               {"decoded", pixels(n, 50)},
                               {"values", Value::object({{"pcc", pcc}})}});
      if (posterior) {
        r["sd"] = pixels(n, 90);
        r["sd_most"] = 0.25;
        r["draws"] = 3;
        r["samples"] = pixels(3 * n, 10);
        r["values"]["spread"] = spread;
      }
      g["reconstructions"].push_back(r);
    }
  g["trust"] = Value::array({Value::object({{"caption", "posterior, tenfold"},
                                            {"x_label", "spread"},
                                            {"y_label", "error"},
                                            {"x", Value::array({3.0, 1.0, 2.0})},
                                            {"y", Value::array({0.3, 0.1, 0.2})}})});
  g["mosaic"] = base64("not really a picture");
  g["brain"] = Value::object({{"anatomy", Value::object({{"file", "anatomy.nii"}, {"nifti", tiny_nifti()}})},
                              {"overlays", Value::array({Value::object({{"name", "ridge"},
                                                                        {"doc", "pattern of ridge"},
                                                                        {"file", "pattern.nii"},
                                                                        {"nifti", tiny_nifti()},
                                                                        {"least", 1.0},
                                                                        {"most", 10.0}})})}});
  return g;
}

TEST(Gallery, ShowsTextAsTextAndLoadsNothing) {
  const std::string html = render_gallery(made_up());
  EXPECT_THAT(html, HasSubstr("<h1>Digits &lt;b&gt;&amp; co&lt;/b&gt;</h1>"));
  EXPECT_THAT(html, Not(HasSubstr("<b>& co")));
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  EXPECT_THAT(html, HasSubstr("<noscript>"));
  EXPECT_THAT(html, HasSubstr("niivue"));
  Value plain = made_up();
  plain.erase("brain");
  plain.erase("trust");
  const std::string light = render_gallery(plain);
  EXPECT_LT(light.size(), 200'000U);  // the viewer is there only when it is needed
  EXPECT_THAT(light, Not(HasSubstr("href=\"#trust\"")));
}

TEST(Gallery, RefusesWhatDoesNotFit) {
  auto refusal = [](auto change) {
    Value g = made_up();
    change(g);
    return message_of<DataError>([&] { render_gallery(g); });
  };
  EXPECT_EQ(refusal([](Value& g) { g.erase("truth"); }), "gallery: truth: expected a value, found none");
  EXPECT_EQ(refusal([](Value& g) { g["truth"] = pixels(kItems - 1, 0); }),
            "gallery: truth: expected 72 bytes, found 66");
  EXPECT_EQ(refusal([](Value& g) {
              g["shape"] = Value::array({0, 3});
            }),
            "gallery: shape: expected [rows, columns], found [0,3]");
  EXPECT_EQ(refusal([](Value& g) { g["splits"].as_array()[0]["items"] = Value::array({12}); }),
            "gallery: splits.items: expected indices below 12, found 12");
  EXPECT_EQ(refusal([](Value& g) { g["headline"] = "ssim"; }),
            "gallery: headline: expected one of the measures, found ssim");
  EXPECT_EQ(refusal([](Value& g) { g["reconstructions"].as_array()[0]["values"]["pcc"] = Value::array({1.0}); }),
            "gallery: reconstructions 'ridge'.values.pcc: expected 12 numbers, found [1.0]");
  EXPECT_EQ(refusal([](Value& g) { g["reconstructions"].as_array()[2]["draws"] = 4; }),
            "gallery: reconstructions 'posterior'.samples: expected 288 bytes, found 216");
}

/// What the page holds once a script has used it: the page is opened in headless Chromium.
std::string in_browser(std::string html, const std::string& script) {
  const auto folder = percept::testing::temporary_folder() / "browser";
  std::filesystem::create_directories(folder);
  const auto at = html.find("nonce=\"") + 7;
  const std::string nonce = html.substr(at, html.find('"', at) - at);
  // before everything: whatever goes wrong while the page starts is seen
  const std::string watch =
      "<script nonce=\"" + nonce +
      "\">window.wrong = []; addEventListener('error', (e) => wrong.push(String(e.message)));"
      "addEventListener('unhandledrejection', (e) => wrong.push(String(e.reason)));"
      "addEventListener('securitypolicyviolation', (e) => wrong.push('policy: ' + e.blockedURI));"
      "const report = console.error; console.error = (...a) => { wrong.push(a.join(' ')); report(...a); };</script>";
  html.insert(html.find("<title>"), watch);
  html.insert(
      html.rfind("</body>"),
      "<script nonce=\"" + nonce +
          "\">(async () => { const told = []; const tell = (x) => told.push(String(x));"
          "const key = (k) => (document.activeElement || document.body).dispatchEvent(new KeyboardEvent('keydown', "
          "{key: k, bubbles: true}));"
          "const choose = (id, v) => { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new "
          "Event(id === 'best' ? 'input' : 'change')); };"
          "const names = () => [...document.querySelectorAll('.card header b')].map((b) => "
          "b.textContent.slice(6)).join();"
          "try {" +
          script +
          "} catch (e) { tell('threw ' + e); }"
          "document.documentElement.innerHTML = '<pre>' + told.concat(wrong).join(';') + '</pre>'; })();</script>");
  write_atomic(folder / "page.html", html);
  const std::string command =
      "timeout 600 chromium --headless --no-sandbox --disable-gpu-sandbox --use-gl=angle "
      "--use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist --no-first-run "
      "--user-data-dir='" +
      (folder / "profile").string() + "' --window-size=1200,900 --virtual-time-budget=20000 --dump-dom 'file://" +
      (folder / "page.html").string() + "' 2>'" + (folder / "log").string() + "'";
  std::string dom;
  FILE* pipe = popen(command.c_str(), "r");  // NOLINT: what the command holds is made here
  if (!pipe) return "no browser";
  std::array<char, 4096> buffer{};
  while (const auto n = std::fread(buffer.data(), 1, buffer.size(), pipe)) dom.append(buffer.data(), n);
  pclose(pipe);
  const auto from = dom.find("<pre>"), to = dom.find("</pre>");
  return from == dom.npos ? dom.substr(0, 2000) : dom.substr(from + 5, to - from - 5);
}

class GalleryInBrowser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v chromium >/dev/null 2>&1") == 0) return;  // NOLINT
    if (percept::testing::in_ci()) FAIL() << "chromium is not installed";
    GTEST_SKIP() << "chromium is not installed";
  }
};

TEST_F(GalleryInBrowser, SortsFiltersAndIsUsedByKeyboard) {
  EXPECT_EQ(in_browser(render_gallery(made_up()), R"(
      tell(names());
      choose('sort', 'ridge/pcc'); tell(names());
      choose('sort', 'posterior/spread'); tell(names().slice(0, 5));
      choose('sort', 'posterior/pcc'); choose('best', '25'); tell(names());
      choose('best', '100'); choose('class', '9'); tell(names());
      document.getElementById('direction').click(); tell(names());
      choose('class', ''); choose('sort', 'item'); choose('split', 'official'); tell(names()); tell(document.getElementById('count').textContent);
      document.getElementById('direction').click();
      key('g'); tell(document.activeElement.dataset.item); key('ArrowRight'); tell(document.activeElement.dataset.item);
      key('Enter'); const d = document.getElementById('one'); tell(d.open); tell(d.querySelector('h2').textContent);
      tell(d.querySelectorAll('.samples canvas').length); key('ArrowLeft'); tell(d.querySelector('h2').textContent);
      d.close(); await new Promise((r) => setTimeout(r, 50)); tell(d.open);
      document.querySelector('#controls fieldset button').click(); tell(document.querySelectorAll('.card .tile').length);)"),
            "0,1,2,3,4,5,6,7,8,9,10,11;"
            "11,10,9,8,7,6,5,4,3,2,1,0;"
            "0,1,2;"
            "0,1,2;"
            "0,3,6,9;"
            "9,6,3,0;"
            "11,10;2 of 2 images;"
            "10;11;"
            "true;image 11 · 6;"
            "3;image 10 · 6;"
            "false;"
            "4");
}

TEST_F(GalleryInBrowser, PaintsPixelsAndTheBrain) {
  EXPECT_EQ(in_browser(render_gallery(made_up()), R"(
      const c = document.querySelector('.card .true canvas'), p = c.getContext('2d').getImageData(0, 0, 3, 2).data;
      tell([c.width, c.height, p[0], p[4], p[20], p[3]].join());
      for (let i = 0; i < 100 && !document.getElementById('brain').dataset.ready; ++i) await new Promise((r) => setTimeout(r, 100));
      tell(document.getElementById('brain').dataset.ready); tell(document.getElementById('brain-doc').textContent);
      tell(document.querySelectorAll('#trust-plots canvas').length);)"),
            "3,2,0,7,35,255;yes;pattern of ridge;1");
}

/// A run of two scores and two splits as percept run leaves it: images of 2 x 3 with keys 4, 7 and 9; "posterior" has
/// spread and samples.
std::filesystem::path made_up_run() {
  const auto run = percept::testing::temporary_folder() / "run";
  std::filesystem::remove_all(run);
  std::filesystem::create_directories(run);
  io::StoreWriter store(run / "predictions.percept");
  store.set_name("made up");
  Value scores = Value::array(), items = Value::table();
  auto add = [&](const std::string& name, std::vector<Part> parts, const std::vector<std::int64_t>& keys,
                 double first) {
    StreamFormat format = item_format({1});
    format.parts = std::move(parts);
    const int stream = store.add_stream(name, format);
    Eigen::MatrixXd frames(format.size(), static_cast<Index>(keys.size()));
    for (Index i = 0; i < frames.size(); ++i) frames.data()[i] = first + static_cast<double>(i) / 100;
    store.append(stream, ConstFrames(frames.data(), Scalar::f64, frames.rows(), frames.cols(), frames.rows()), keys);
  };
  auto part = [](const char* name, std::vector<Index> shape) {
    Part p;
    p.name = name;
    p.shape = std::move(shape);
    return p;
  };
  for (const std::string name : {"ridge", "posterior"})
    for (const std::string split : {"all", "some"}) {
      const std::vector<std::int64_t> keys =
          split == "all" ? std::vector<std::int64_t>{4, 7, 9} : std::vector<std::int64_t>{9};
      const std::string prefix = name + "." + split + ".";
      add(prefix + "truth", {part("image", {2, 3})}, keys, split == "some" ? 0.12 : 0);
      add(prefix + "decoded", {part("image", {2, 3})}, keys, 0.5);
      if (name == "posterior")
        add(prefix + "frame", {part("mean", {2, 3}), part("sd", {2, 3}), part("samples", {4, 2, 3})}, keys, 0.1);
      auto metric = [](const char* m, bool lower) {
        return Value::object({{"name", m}, {"doc", "d"}, {"lower_is_better", lower}, {"value", 0.1}});
      };
      scores.push_back(Value::object({{"name", name},
                                      {"split", split},
                                      {"model", name},
                                      {"metrics", Value::array({metric("mse", true), metric("pcc", false)})}}));
      Value mse = Value::array(), spread = Value::array();
      for (std::size_t k = 0; k < keys.size(); ++k) {
        mse.push_back(0.04);
        spread.push_back(0.2);
      }
      items[name][split] = Value::object({{"values", Value::object({{"mse", mse}, {"spread", spread}})}});
    }
  store.add_table({"item", {{"label", {6, 6, 6, 6, 9, 6, 6, 9, 6, NAN}, {}}}});
  store.commit();
  write_atomic(run / "result.json", to_json(Value::object({{"items", items}})));
  write_atomic(run / "report.json", to_json(Value::object({{"title", "Made up"}, {"scores", scores}})));
  return run;
}

TEST(GalleryOfRun, HoldsEveryMethodSplitAndImage) {
  const Value g = gallery_of(made_up_run(), 3);
  EXPECT_EQ(g.at("title").as_string(), "Made up");
  EXPECT_EQ(to_json(g.at("shape")), "[2,3]");
  EXPECT_EQ(to_json(g.at("items")),
            R"([{"name":"image 4","label":"9"},{"name":"image 7","label":"9"},{"name":"image 9","label":""}])");
  EXPECT_EQ(to_json(g.at("splits")), R"([{"name":"all","items":[0,1,2]},{"name":"some","items":[2]}])");
  ASSERT_EQ(g.at("reconstructions").size(), 4U);
  std::string truth;  // 0, 0.01, 0.02 ... as bytes
  for (int i = 0; i < 18; ++i) truth.push_back(static_cast<char>(std::lround(255 * 0.01 * i)));
  EXPECT_EQ(g.at("truth").as_string(), base64(truth));
  const Value &ridge = g.at("reconstructions").as_array()[0], &posterior = g.at("reconstructions").as_array()[2];
  EXPECT_FALSE(ridge.contains("sd"));
  EXPECT_EQ(to_json(ridge.at("values").at("mse")), "[0.04,0.04,0.04]");
  EXPECT_EQ(posterior.at("draws").as_integer(), 3);
  EXPECT_NEAR(posterior.at("sd_most").as_number(), 0.1 + (2 * 36 + 11) / 100.0, 1e-12);  // the last of the last image
  EXPECT_FALSE(g.at("measures").at("mse").at("higher").as_bool());
  EXPECT_EQ(g.at("measures").at("spread").at("kind").as_string(), "trust");
  ASSERT_EQ(g.at("trust").size(), 4U);
  EXPECT_NEAR(g.at("trust").as_array()[0].at("y").as_array()[0].as_number(), 0.2, 1e-12);  // the root of the error
  EXPECT_THAT(render_gallery(g), HasSubstr("data:image/png;base64,"));
}

TEST(GalleryOfRun, RefusesOtherFolders) {
  const auto run = made_up_run();
  std::filesystem::remove(run / "report.json");
  EXPECT_THAT(message_of<DataError>([&] { gallery_of(run); }),
              HasSubstr("report.json: expected a folder that percept run wrote, found none"));
  write_atomic(run / "report.json", R"({"title": "none", "scores": [{"name": "other", "split": "all"}]})");
  EXPECT_THAT(message_of<DataError>([&] { gallery_of(run); }),
              HasSubstr("predictions.percept: expected a score whose target is images, found none"));
}

TEST(Html, Base64OfKnownTexts) {  // RFC 4648, section 10
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
}

}  // namespace
}  // namespace percept::evaluation
