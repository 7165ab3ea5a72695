/// percept live, percept replay and the recordings they leave, as processes.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "io/session.h"
#include "tests/cli/program.h"
#include "tests/support/browser.h"

namespace percept::cli_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// The workbench with its pipeline fitted.
fs::path fitted() {
  const fs::path folder = workbench();
  const Result fit = percept(folder, {"fit", "base.toml"});
  EXPECT_EQ(fit.code, 0) << fit.error;
  return folder;
}

TEST(Live, AReplayIsTheOfflineRunAndCanBeRepeated) {
  const fs::path folder = fitted();
  const Result live =
      percept(folder, {"replay", "base.toml", "--speed", "0", "--packet", "7", "--record", "monday", "--json"});
  ASSERT_EQ(live.code, 0) << live.error;
  const Value v = live.json();
  EXPECT_EQ(v.at("decoded_frames").as_integer(), 200);
  EXPECT_EQ(v.at("inputs").at("activity").at("frames").as_integer(), 200);
  EXPECT_EQ(v.at("recorder").at("lost_records").as_integer(), 0);
  EXPECT_TRUE(v.at("finished").as_bool());

  const Recording r = io::open_session(folder / "monday" / "live.session");
  EXPECT_TRUE(r.meta.at("live").at("complete").as_bool());
  EXPECT_EQ(r.streams[0].frames(), 200);

  const Result again = percept(folder, {"rerun", "monday", "--json"});
  ASSERT_EQ(again.code, 0) << again.error;
  EXPECT_EQ(again.json().at("identical").as_integer(), 200);
  EXPECT_EQ(percept(folder, {"info", "monday/live.session"}).code, 0);
  EXPECT_EQ(percept(folder, {"check", "monday/live.session"}).code, 0);

  const Result there = percept(folder, {"replay", "base.toml", "--speed", "0", "--record", "monday"});
  EXPECT_EQ(there.code, 3);
  EXPECT_THAT(there.error, HasSubstr("a new folder for the recording"));
}

TEST(Live, ARecordingIsExportedAsNwb) {
  const fs::path folder = fitted();
  ASSERT_EQ(percept(folder, {"replay", "base.toml", "--speed", "0", "--record", "r"}).code, 0);
  const Result made = percept(folder, {"export", "r", "r.nwb", "--json"});
  ASSERT_EQ(made.code, 0) << made.error;
  EXPECT_THAT(made.json().at("start").as_string(), ::testing::MatchesRegex("20..-..-..T..:..:..Z"));
  std::map<std::string, std::string> sets;
  const Value info = percept(folder, {"info", "r.nwb", "--json"}).json();
  for (auto& set : info.at("contents").as_array()) sets[set.at("name").as_string()] = to_json(set.at("shape"));
  EXPECT_EQ(sets["/acquisition/activity/data"], "[200,4]");
  EXPECT_EQ(sets["/processing/decoded/kalman_mean/data"], "[200,2]");
  EXPECT_EQ(sets["/processing/decoded/kalman_covariance/data"], "[200,2,2]");
  EXPECT_EQ(percept(folder, {"check", "r.nwb"}).code, 0);
  // also what was cut off, from the file itself, with a time of one's own
  fs::resize_file(folder / "r" / "live.session", fs::file_size(folder / "r" / "live.session") / 2);
  const Result half = percept(folder, {"export", "r/live.session", "half.nwb", "--start", "2001-02-03T04:05:06+01:00"});
  EXPECT_EQ(half.code, 0) << half.error;
  EXPECT_THAT(half.out, HasSubstr("note: the session was cut off"));
  EXPECT_EQ(percept(folder, {"export", "r", "r.h5"}).code, 2);
  EXPECT_THAT(percept(folder, {"export", "r", "r.nwb", "--start", "now"}).error, HasSubstr("a time with its zone"));
}

TEST(Live, ADamagedModelOrRecordingIsNotRepeated) {
  const fs::path folder = fitted();
  ASSERT_EQ(percept(folder, {"replay", "base.toml", "--speed", "0", "--record", "r"}).code, 0);
  // cut off in the middle: what is whole is still repeated
  const auto bytes = fs::file_size(folder / "r" / "live.session");
  fs::resize_file(folder / "r" / "live.session", bytes / 2);
  const Result half = percept(folder, {"rerun", "r", "--json"});
  ASSERT_EQ(half.code, 0) << half.error;
  EXPECT_GT(half.json().at("frames").as_integer(), 20);
  EXPECT_LT(half.json().at("frames").as_integer(), 199);
  EXPECT_FALSE(half.json().at("complete").as_bool());
  // another model
  ASSERT_EQ(percept(folder, {"fit", "base.toml", "-o", "other", "--set", "kalman.target=kinematics", "--set",
                             "official.train_rows=[0,80]"})
                .code,
            0);
  fs::remove_all(folder / "r" / "models" / "kalman");
  fs::copy(folder / "other" / "kalman", folder / "r" / "models" / "kalman", fs::copy_options::recursive);
  const Result other = percept(folder, {"rerun", "r"});
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.error, HasSubstr("the model of the session"));
}

TEST(Live, StatesGoOutAsLinesOfJson) {
  const fs::path folder = fitted();
  const Result r = percept(folder, {"replay", "base.toml", "--speed", "0", "--output", "stdout", "--quiet"});
  ASSERT_EQ(r.code, 0) << r.error;
  const auto line = r.out.substr(0, r.out.find('\n'));
  const Value first = parse_json(line, "line");
  EXPECT_EQ(first.at("frame").as_integer(), 0);
  EXPECT_TRUE(first.contains("sd"));
  int states = 0;
  for (std::size_t at = 0; (at = r.out.find("{\"frame\"", at)) != std::string::npos; ++at) ++states;
  EXPECT_EQ(states, 200);
}

// a session is ended by a signal, and what was recorded until then is whole
TEST(Live, EndsOrderlyWhenItIsInterrupted) {
  const fs::path folder = fitted();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::chdir(folder.c_str()) != 0) ::_exit(9);
    ::freopen("/dev/null", "w", stdout);
    ::execl(PERCEPT_PROGRAM, "percept", "replay", "base.toml", "--record", "r", "--quiet", nullptr);
    ::_exit(9);
  }
  const fs::path file = folder / "r" / "live.session";
  for (int k = 0; k < 400 && !(fs::exists(file) && fs::file_size(file) > 4000); ++k)
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  ::kill(child, SIGUSR1);  // the emergency stop holds the output
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const Recording r = io::open_session(file);
  EXPECT_TRUE(r.meta.at("live").at("complete").as_bool());
  EXPECT_LT(r.streams[0].frames(), 200);
  bool held = false;
  for (auto& e : r.events) held = held || e.label.text() == "hold";
  EXPECT_TRUE(held);
  EXPECT_EQ(percept(folder, {"rerun", "r"}).code, 0);
}

// the page of a session, in a browser: looked at, and used from the keyboard
TEST(Live, ThePageShowsAndControlsTheSession) {
  if (!testing::Browser::available()) {
    if (testing::in_ci()) FAIL() << "chromium is not installed";
    GTEST_SKIP() << "chromium is not installed";
  }
  const fs::path folder = fitted();
  std::string text_of_click = read_file(folder / "base.toml");
  text_of_click.replace(text_of_click.find("[[stage]]\nuse = \"kalman\""), 24,
                        "[[stage]]\nname = \"press\"\nuse = \"click\"\nfrom = \"activity\"\nhold_s = 0.0\n"
                        "[[stage]]\nuse = \"kalman\"\nfrom = \"activity\"");
  write(folder / "base.toml", text_of_click + "[live]\nclick = \"press\"\n");
  int out[2];
  ASSERT_EQ(::pipe(out), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out[1], STDERR_FILENO);
    if (::chdir(folder.c_str()) != 0) ::_exit(9);
    if (!::freopen("result.json", "w", stdout)) ::_exit(9);
    ::execl(PERCEPT_PROGRAM, "percept", "live", "base.toml", "--page", "--json", "--source", "replay:speed=0.25",
            "--set", "live.guard.max_age_s=1", nullptr);
    ::_exit(9);
  }
  ::close(out[1]);
  std::string text;
  for (char c; text.find("/\n") == text.npos && ::read(out[0], &c, 1) == 1;) text += c;
  const auto at = text.find("http://");
  ASSERT_NE(at, text.npos) << text;
  {
    testing::Browser browser;
    browser.open(text.substr(at, text.size() - at - 1));
    EXPECT_TRUE(browser.wait_for("document.getElementById('link').textContent === 'connected'", 20));
    EXPECT_TRUE(browser.wait_for("document.querySelectorAll('#counters dd').length > 5", 20));
    EXPECT_TRUE(browser.wait_for("document.querySelectorAll('#channels button.good').length === 4", 20));
    EXPECT_TRUE(browser.wait_for("document.querySelector('#values tbody td.n')?.textContent.match(/[0-9]/)", 20));
    EXPECT_TRUE(
        browser.wait_for("document.querySelector('#scope canvas') && document.querySelector('#histogram canvas')", 20));
    EXPECT_TRUE(browser.wait_for("document.getElementById('figures').textContent.match(/clicks[1-9][0-9]* sent/)", 20));
    EXPECT_TRUE(
        browser.wait_for("[...document.querySelectorAll('#stages tbody tr')].map(r => r.cells[0].textContent)"
                         ".join() === 'until it is taken,press,kalman,all of it'",
                         20));
    // a click takes a channel out, and the space bar stops the output, whatever has the focus
    browser.evaluate("document.querySelectorAll('#channels button')[2].click()");
    EXPECT_TRUE(browser.wait_for("document.querySelectorAll('#channels button')[2].className === 'by_hand'", 20));
    browser.evaluate("document.getElementById('stop').focus()");
    browser.key(" ");
    EXPECT_TRUE(browser.wait_for("document.getElementById('hold').textContent.includes('emergency stop')", 20));
    browser.key(" ");
    EXPECT_TRUE(browser.wait_for("document.getElementById('hold').hidden", 20));
    if (const char* keep = std::getenv("PERCEPT_SCREENSHOTS")) {
      std::this_thread::sleep_for(std::chrono::seconds(5));
      browser.screenshot(fs::path(keep) / "live_light.png");
      browser.dark(true);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      browser.screenshot(fs::path(keep) / "live_dark.png");
    }
    browser.key("q");
    EXPECT_TRUE(browser.wait_for("document.getElementById('link').textContent === 'the session has ended'", 20));
    EXPECT_THAT(browser.errors(), ::testing::IsEmpty());
    for (auto& host : browser.hosts()) EXPECT_THAT(host, ::testing::AnyOf(HasSubstr("127.0.0.1:"), "data"));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(out[0]);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const Value result = parse_json(read_file(folder / "result.json"), "result");
  EXPECT_GT(result.at("held_frames").as_integer() + result.at("holds").as_integer(), 0);
}

TEST(Live, SaysWhatIsMissing) {
  const fs::path folder = workbench();
  const auto refusal = [&](std::vector<std::string> words, int code = 3) {
    const Result r = percept(folder, words);
    EXPECT_EQ(r.code, code) << r.error;
    EXPECT_EQ(std::count(r.error.begin(), r.error.end(), '\n'), 1) << r.error;
    return r.error;
  };
  EXPECT_THAT(refusal({"replay", "base.toml"}),
              AllOf(HasSubstr("models/base/kalman"), HasSubstr("percept fit base.toml")));
  ASSERT_EQ(percept(folder, {"fit", "base.toml"}).code, 0);
  EXPECT_THAT(refusal({"live", "base.toml"}), HasSubstr("live.source: expected where the data come from"));
  EXPECT_THAT(refusal({"live", "base.toml", "--source", "upd:port=1"}), HasSubstr("did you mean 'udp'"));
  EXPECT_THAT(refusal({"live", "base.toml", "--source", "replay:file=z.csv"}), HasSubstr("z.csv"));
  EXPECT_THAT(refusal({"replay", "base.toml", "--set", "live.nod=kalman"}), HasSubstr("did you mean 'node'"));
  EXPECT_THAT(refusal({"replay", "base.toml", "--set", "live.node=kalma"}), HasSubstr("did you mean 'kalman'"));
  EXPECT_THAT(refusal({"replay", "base.toml", "--set", "live.guard.low=[1,2,3]"}), HasSubstr("one for each of 2 rows"));
  EXPECT_THAT(refusal({"replay", "base.toml", "--set", "live.health=3"}), HasSubstr("write [live.health]"));
  EXPECT_THAT(refusal({"replay", "base.toml", "--json", "--output", "stdout"}, 2), HasSubstr("exclude each other"));
  // what never began leaves no folder behind, and a check makes none
  EXPECT_THAT(refusal({"replay", "base.toml", "--record", "r", "--page", "--set", "live.page.bind=\"203.0.113.7\""}),
              HasSubstr("live.page.port"));
  EXPECT_EQ(percept(folder, {"replay", "base.toml", "--record", "r", "--speed", "0"}).code, 0);
  // a device with other channels than the model was fitted on
  EXPECT_THAT(refusal({"live", "base.toml", "--source", "simulator:channels=8,rate_hz=10,speed=0,duration_s=20"}),
              HasSubstr("channels"));
}

// the example as it stands: fitted, steered by its user, calibrated on the way, and repeated
TEST(Live, AClosedLoopRunsByItself) {
  const fs::path folder = testing::temporary_folder();
  fs::copy_file(testing::source_folder() / "examples" / "closed_loop.toml", folder / "loop.toml");
  ASSERT_EQ(percept(folder, {"fit", "loop.toml"}).code, 0);
  const std::string source = "simulator:channels=64,rate_hz=20,duration_s=150,max_hz=40,seed=7,speed=0";
  const Result live = percept(folder, {"live", "loop.toml", "--source", source, "--record", "s", "--json", "--set",
                                       "live.calibration.at_s=[0]"});
  ASSERT_EQ(live.code, 0) << live.error;
  const Value v = live.json();
  const Value& t = v.at("task");
  EXPECT_EQ(v.at("decoded_frames").as_integer(), 3000);
  EXPECT_EQ(t.at("use").as_string(), "centre_out");
  EXPECT_GT(t.at("measured").as_integer(), 30);
  EXPECT_GT(t.at("success").at("value").as_number(), 0.9);
  EXPECT_FALSE(t.at("bit_rate").at("low").is_null());
  EXPECT_EQ(t.at("calibration").at("fits").as_integer(), 12) << "every 5 s of 4 x 15 s";
  EXPECT_EQ(v.at("swaps").as_integer(), 24) << "two stages";
  const Result again = percept(folder, {"rerun", "s", "--json"});
  ASSERT_EQ(again.code, 0) << again.error;
  EXPECT_EQ(again.json().at("identical").as_integer(), 3000);
  // the recording's own end says the same
  const Recording r = io::open_session(folder / "s" / "live.session");
  EXPECT_EQ(to_json(r.meta.at("live").at("counts").at("task")), to_json(t));
  EXPECT_EQ(r.stream("live_task", "t").frames(), 3000);
  // a stage that starts anew at the task's events does so again when it is repeated
  ASSERT_EQ(percept(folder, {"live", "loop.toml", "--source", source, "--record", "anew", "--set",
                             "kalman.reset=\"target_shown\"", "--set", "live.calibration.at_s=[0]"})
                .code,
            0);
  const Result repeated = percept(folder, {"rerun", "anew"});
  EXPECT_EQ(repeated.code, 0) << repeated.error;
  // and a decoder can be fitted to what was meant, offline as it was live
  std::string offline = read_file(folder / "loop.toml");
  const auto input = offline.find("simulate = "), more = offline.find("\n\n", input);
  offline.replace(input, more - input, "file = \"s/live.session\"");
  offline.replace(offline.find("{ from = \"velocity\", lag_s = 0.1 }"), 35, "\"live_task.intended\"");
  offline.replace(offline.find("train_s = [0, 200]"), 18, "train_s = [0, 100]");
  offline.replace(offline.find("test_s = [210, 300]"), 19, "test_s = [110, 150]");
  offline.replace(offline.find("metrics = "), 10,
                  "confounds = [\"time\"]\nshuffles = 0\npermutations = 20\nbootstrap = 20\nmetrics = ");
  write(folder / "offline.toml", offline);
  const Result scored = percept(folder, {"run", "offline.toml", "--json"});
  ASSERT_EQ(scored.code, 0) << scored.error;
  EXPECT_GT(scored.json().at("scores").at("mean_r").as_number(), 0.6);
  const Result words = percept(folder, {"live", "loop.toml", "--source", source, "--quiet"});
  EXPECT_THAT(words.out, AllOf(HasSubstr("centre_out:"), HasSubstr("time to target"), HasSubstr("bit rate")));

  const auto refusal = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"live", "loop.toml"};
    all.insert(all.end(), more.begin(), more.end());
    const Result r = percept(folder, all);
    EXPECT_EQ(r.code, 3);
    return r.error;
  };
  EXPECT_THAT(refusal({"--source", "replay"}), HasSubstr("live.user: expected the simulator as the only source"));
  EXPECT_THAT(refusal({"--set", "live.task.use=\"maze\""}), HasSubstr("one of centre_out, fitts, grid"));
  EXPECT_THAT(refusal({"--set", "live.task.raduis=0.1"}), HasSubstr("did you mean 'radius'"));
  EXPECT_THAT(refusal({"--set", "live.user.delay_s=-1"}), HasSubstr("live.user.delay_s"));
  EXPECT_THAT(refusal({"--set", "live.calibration.from=\"kalman\""}), HasSubstr("'zscore' is not below it"));
  // stages whose intention is not one, and an input that is not the collected one
  std::string two = read_file(folder / "loop.toml");
  const auto filter = two.find("use = \"kalman\""), line = two.find("\n\n", filter);
  two.replace(filter, line - filter,
              "name = \"map\"\nuse = \"ridge\"\ncovariance = \"holdout\"\ntarget = { from = \"velocity\", lag_s = "
              "0.1 }\n\n[[stage]]\nuse = \"dkf\"\ntarget = { from = \"velocity\", lag_s = 0.1 }");
  write(folder / "two.toml", two);
  ASSERT_EQ(percept(folder, {"fit", "two.toml"}).code, 0);
  two.replace(two.rfind("lag_s = 0.1"), 11, "lag_s = 0.2");
  write(folder / "two.toml", two);
  EXPECT_THAT(percept(folder, {"live", "two.toml"}).error,
              HasSubstr("dkf.target = \"velocity\": expected \"velocity\" with lag_s 0.1, as the others"));
  std::string join = read_file(folder / "loop.toml");
  join.replace(join.find("use = \"zscore\""), 14, "use = \"gain\"");
  join.replace(join.find("use = \"kalman\""), 14, "use = \"kalman\"\nfrom = [\"gain\", \"activity\"]");
  join.replace(join.find("[live.calibration]"), 18, "[live.calibration]\nfrom = \"gain\"");
  write(folder / "join.toml", join);
  const Result joined = percept(folder, {"fit", "join.toml"});
  ASSERT_EQ(joined.code, 0) << joined.error;
  EXPECT_THAT(percept(folder, {"live", "join.toml"}).error,
              HasSubstr("live.calibration.from = \"gain\": expected an input or stage that all below it comes from: "
                        "'kalman' also reads 'activity'"));
  std::string given = read_file(folder / "loop.toml");
  given.replace(given.find("use = \"kalman\""), 14, "use = \"kalman\"\nmodel = \"models/loop/kalman\"");
  write(folder / "given.toml", given);
  EXPECT_THAT(
      percept(folder, {"live", "given.toml", "--models", "models/loop"}).error,
      HasSubstr("live.calibration: expected a stage that is fitted to a target, and has no `model` of its own"));

  fs::copy_file(folder / "loop.toml", folder / "none.toml");
  std::string text = read_file(folder / "none.toml");
  text.replace(text.find("[live.task]"), 11, "[live.real_time]");
  text.replace(text.find("use = \"centre_out\""), 18, "enable = false");
  text.erase(text.find("hold_s = 0.3"), 12);
  write(folder / "none.toml", text);
  EXPECT_THAT(percept(folder, {"live", "none.toml", "--models", "models/loop"}).error,
              HasSubstr("live.user: expected a [live.task] beside it"));
}

// a whole session from the page's keyboard: started, stopped, calibrated and ended, four times as fast as it would be
TEST(Live, AClosedLoopIsRunFromThePage) {
  if (!testing::Browser::available()) {
    if (testing::in_ci()) FAIL() << "chromium is not installed";
    GTEST_SKIP() << "chromium is not installed";
  }
  const fs::path folder = testing::temporary_folder();
  fs::copy_file(testing::source_folder() / "examples" / "closed_loop.toml", folder / "loop.toml");
  ASSERT_EQ(percept(folder, {"fit", "loop.toml"}).code, 0);
  Running live(folder, {"live", "loop.toml", "--page", "--json", "--record", "s", "--source",
                        "simulator:channels=64,rate_hz=20,duration_s=900,max_hz=40,seed=7,speed=4", "--set",
                        "live.task.wait_for_start=true", "--set", "live.calibration.block_s=8", "--set",
                        "live.guard.max_age_s=2"});
  ASSERT_TRUE(within(30, [&] { return live.errors().find("/\n") != std::string::npos; })) << live.errors();
  const std::string text = live.errors();
  const auto at = text.find("http://");
  std::int64_t shown = 0;
  {
    testing::Browser browser(1280, 1000);
    browser.open(text.substr(at, text.find('\n', at) - at));
    EXPECT_TRUE(browser.wait_for("document.getElementById('task_state').textContent === 'waiting: press s'", 20));
    EXPECT_TRUE(browser.wait_for("document.getElementById('task_name').textContent === 'Centre-out'", 20));
    browser.key("s");
    EXPECT_TRUE(
        browser.wait_for("state.task.target && document.getElementById('start').textContent.startsWith('Pause')", 20));
    const auto trials = [](int n) {
      return "Number(document.getElementById('score_trials').textContent) >= " + std::to_string(n);
    };
    EXPECT_TRUE(browser.wait_for(trials(4), 30));
    EXPECT_TRUE(browser.wait_for("document.getElementById('score_success').textContent.endsWith('%')", 20));
    EXPECT_TRUE(browser.wait_for("Number(document.getElementById('score_bits').textContent) > 0.3", 20));
    // what is drawn is the cursor in its arena: not one colour
    EXPECT_TRUE(
        browser.wait_for("(() => { const c = document.getElementById('arena'), d = c.getContext('2d')"
                         ".getImageData(0, 0, c.width, c.height).data; const s = new Set(); for (let i = 0; i < "
                         "d.length; i += 4) if (d[i + 3] === 255) s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2]); "
                         "return s.size > 1; })()",
                         20));
    // the emergency stop aborts the trial and shows no other one
    browser.key(" ");
    EXPECT_TRUE(browser.wait_for("state.task.phase === 'waiting' && !state.task.target", 20));
    EXPECT_TRUE(browser.wait_for("document.getElementById('hold').textContent.includes('emergency stop')", 20));
    browser.key(" ");
    EXPECT_TRUE(browser.wait_for("state.task.target", 20));
    // paused and started again
    browser.key("s");
    EXPECT_TRUE(browser.wait_for("state.task.phase === 'waiting'", 20));
    browser.key("s");
    EXPECT_TRUE(browser.wait_for("state.task.phase === 'reach'", 20));
    browser.key("r");
    EXPECT_TRUE(browser.wait_for("document.getElementById('task_note').textContent.startsWith('Calibrating: ')", 20));
    EXPECT_TRUE(browser.wait_for("document.getElementById('task_note').textContent.startsWith('Fitted anew')", 30));
    EXPECT_TRUE(browser.wait_for(trials(2), 30));
    if (const char* keep = std::getenv("PERCEPT_SCREENSHOTS")) {
      browser.screenshot(fs::path(keep) / "loop_light.png");
      browser.dark(true);
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
      browser.screenshot(fs::path(keep) / "loop_dark.png");
    }
    browser.key("q");
    EXPECT_TRUE(browser.wait_for("document.getElementById('link').textContent === 'the session has ended'", 30));
    shown = browser.evaluate("Number(document.getElementById('score_trials').textContent)").as_integer();
    EXPECT_THAT(browser.errors(), ::testing::IsEmpty());
  }
  const Result end = live.wait();
  ASSERT_EQ(end.code, 0) << end.error;
  const Value t = end.json().at("task");
  EXPECT_GT(t.at("assisted").as_integer(), 0);
  EXPECT_GE(t.at("calibration").at("fits").as_integer(), 1);
  // the page counts from the calibration on, the report from the beginning
  EXPECT_GE(shown, 2);
  EXPECT_GE(t.at("measured").as_integer(), shown + 4);
  // models came in whenever a fit was ready: the recording knows when
  EXPECT_GE(end.json().at("swaps").as_integer(), 2);
  const Result again = percept(folder, {"rerun", "s"});
  EXPECT_EQ(again.code, 0) << again.error;
}

TEST(Live, ChecksTheMachine) {
  const fs::path folder = workbench();
  const Result r = percept(folder, {"live", "base.toml", "--check", "--json"});
  ASSERT_EQ(r.code, 0) << r.error;
  EXPECT_GT(r.json().at("wakeups").as_integer(), 100);
  EXPECT_GT(r.json().at("late_max_s").as_number(), 0);
}

}  // namespace
}  // namespace percept::cli_test
