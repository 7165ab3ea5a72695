#include "tests/support/browser.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/data.h"

namespace percept::testing {

struct Browser::Impl {
  pid_t pid = -1;
  int to = -1, from = -1;
  std::int64_t next_id = 0;
  std::string pending, session;
  std::vector<std::string> errors, hosts;

  void write(const std::string& message) {
    std::string all = message + '\0';
    for (std::size_t done = 0; done < all.size();) {
      const auto n = ::write(to, all.data() + done, all.size() - done);
      if (n <= 0) throw std::runtime_error("chromium does not take commands");
      done += static_cast<std::size_t>(n);
    }
  }
  Value read() {
    for (;;) {
      if (const auto end = pending.find('\0'); end != std::string::npos) {
        const Value v = parse_json(pending.substr(0, end), "chromium");
        pending.erase(0, end + 1);
        return v;
      }
      pollfd fd{from, POLLIN, 0};
      if (::poll(&fd, 1, 60'000) <= 0) throw std::runtime_error("chromium does not answer");
      char buffer[65536];
      const auto n = ::read(from, buffer, sizeof buffer);
      if (n <= 0) throw std::runtime_error("chromium ended");
      pending.append(buffer, static_cast<std::size_t>(n));
    }
  }
  void note(const Value& v) {
    const std::string method = v.get("method", "");
    if (method == "Runtime.exceptionThrown") errors.push_back(to_json(v.at("params").at("exceptionDetails")));
    if (method == "Log.entryAdded" && v.at("params").at("entry").get("level", "") == "error")
      errors.push_back(v.at("params").at("entry").get("text", ""));
    if (method == "Runtime.consoleAPICalled" && v.at("params").get("type", "") == "error")
      errors.push_back(to_json(v.at("params").at("args")));
    if (method == "Network.requestWillBeSent") {
      const std::string url = v.at("params").at("request").get("url", "");
      const auto start = url.find("//");
      hosts.push_back(start == std::string::npos ? url.substr(0, url.find(':'))
                                                 : url.substr(start + 2, url.find('/', start + 2) - start - 2));
    }
  }
  Value ask(const std::string& method, Value params = Value::table()) {
    Value message = Value::object({{"id", ++next_id}, {"method", method}, {"params", std::move(params)}});
    if (!session.empty()) message["sessionId"] = session;
    write(to_json(message));
    for (;;) {
      const Value v = read();
      if (v.get("id", -1) != next_id) {
        note(v);
        continue;
      }
      if (const Value* error = v.find("error")) throw std::runtime_error(method + ": " + to_json(*error));
      return v.at("result");
    }
  }
};

bool Browser::available() { return std::system("command -v chromium >/dev/null 2>&1") == 0; }  // NOLINT

Browser::Browser(int width, int height) : impl_(std::make_unique<Impl>()) {
  int down[2], up[2];
  if (::pipe(down) != 0 || ::pipe(up) != 0) throw std::runtime_error("no pipe");
  const std::string profile = "--user-data-dir=" + temporary_folder().string(),
                    size = "--window-size=" + std::to_string(width) + "," + std::to_string(height);
  impl_->pid = ::fork();
  if (impl_->pid == 0) {
    // it reads commands from 3 and answers on 4
    const int in = ::fcntl(down[0], F_DUPFD, 10), out = ::fcntl(up[1], F_DUPFD, 10);
    ::dup2(in, 3);
    ::dup2(out, 4);
    for (int fd : {1, 2}) ::dup2(::open("/dev/null", O_WRONLY), fd);
    for (int fd = 5; fd < 64; ++fd) ::close(fd);
    ::execlp("chromium", "chromium", "--headless", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
             "--disable-gpu-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--hide-scrollbars", profile.c_str(),
             size.c_str(), "about:blank", nullptr);
    ::_exit(127);
  }
  ::close(down[0]);
  ::close(up[1]);
  impl_->to = down[1];
  impl_->from = up[0];
  ::signal(SIGPIPE, SIG_IGN);
  std::string target;
  for (int k = 0; k < 600 && target.empty(); ++k) {
    const Value targets = impl_->ask("Target.getTargets");
    for (auto& t : targets.at("targetInfos").as_array())
      if (t.get("type", "") == "page") target = t.get("targetId", "");
    if (target.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  impl_->session = impl_->ask("Target.attachToTarget", Value::object({{"targetId", target}, {"flatten", true}}))
                       .get("sessionId", "");
  for (const char* domain : {"Page", "Runtime", "Log", "Network"}) impl_->ask(std::string(domain) + ".enable");
}

Browser::~Browser() {
  ::close(impl_->to);
  ::close(impl_->from);
  if (impl_->pid > 0) {
    ::kill(impl_->pid, SIGKILL);
    ::waitpid(impl_->pid, nullptr, 0);
  }
}

void Browser::open(const std::string& url) {
  impl_->ask("Page.navigate", Value::object({{"url", url}}));
  if (!wait_for("document.readyState === 'complete'", 60)) throw std::runtime_error(url + " does not load");
}

Value Browser::evaluate(const std::string& expression) {
  const Value v = impl_->ask(
      "Runtime.evaluate", Value::object({{"expression", expression}, {"returnByValue", true}, {"awaitPromise", true}}));
  if (const Value* e = v.find("exceptionDetails")) throw std::runtime_error(expression + ": " + to_json(*e));
  const Value* value = v.at("result").find("value");
  return value ? *value : Value();
}

bool Browser::wait_for(const std::string& expression, double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  do {
    const Value v = evaluate("!!(" + expression + ")");
    if (v.is_bool() && v.as_bool()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

void Browser::key(const std::string& key) {
  for (const char* type : {"keyDown", "keyUp"}) {
    Value params = Value::object({{"type", type}, {"key", key}});
    if (key.size() == 1) {
      const int code = key == " " ? 32 : key[0] >= 'a' && key[0] <= 'z' ? key[0] - 32 : key[0];
      params["windowsVirtualKeyCode"] = code;
      params["code"] = key == " " ? std::string("Space") : std::string("Key") + static_cast<char>(code);
      if (type == std::string("keyDown")) params["text"] = key;
    }
    if (key == "Tab") params["windowsVirtualKeyCode"] = 9;
    impl_->ask("Input.dispatchKeyEvent", params);
  }
}

void Browser::dark(bool on) {
  impl_->ask("Emulation.setEmulatedMedia",
             Value::object({{"features", Value::array({Value::object({{"name", "prefers-color-scheme"},
                                                                      {"value", on ? "dark" : "light"}})})}}));
}

void Browser::screenshot(const std::filesystem::path& png) {
  const std::string text =
      impl_->ask("Page.captureScreenshot", Value::object({{"captureBeyondViewport", true}})).get("data", "");
  std::string bytes;
  unsigned value = 0;
  int bits = 0;
  for (char c : text) {
    const std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto digit = digits.find(c);
    if (digit == digits.npos) break;
    value = value << 6 | static_cast<unsigned>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>(value >> bits & 255);
    }
  }
  std::ofstream(png, std::ios::binary) << bytes;
}

const std::vector<std::string>& Browser::errors() const { return impl_->errors; }
const std::vector<std::string>& Browser::hosts() const { return impl_->hosts; }

}  // namespace percept::testing
