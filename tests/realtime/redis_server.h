/// A real redis-server for one test, on a Unix socket in a folder of its own.
#pragma once

#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/data.h"

namespace percept::testing {

class RedisServer {
 public:
  RedisServer() : folder_(temporary_folder()) {}
  ~RedisServer() { stop(); }
  static bool available() {
    const char* path = std::getenv("PATH");
    std::string all = path ? path : "";
    for (std::size_t at = 0; at <= all.size();) {
      const auto end = std::min(all.find(':', at), all.size());
      if (::access((all.substr(at, end - at) + "/redis-server").c_str(), X_OK) == 0) return true;
      at = end + 1;
    }
    return false;
  }
  std::string socket() const { return (folder_ / "redis.sock").string(); }
  void start() {
    pid_ = ::fork();
    if (pid_ == 0) {
      const std::string socket_path = socket(), folder = folder_.string();
      const char* words[] = {
          "redis-server", "--port", "0",           "--unixsocket", socket_path.c_str(), "--dir",     folder.c_str(),
          "--save",       "",       "--daemonize", "no",           "--logfile",         "redis.log", nullptr};
      ::execvp(words[0], const_cast<char**>(words));
      ::_exit(127);
    }
    for (int i = 0; i < 500 && !context(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_TRUE(context()) << "redis-server does not answer";
  }
  void stop() {
    context_.reset();
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    pid_ = -1;
    std::filesystem::remove(socket());
  }
  /// A command of words, binary ones too.
  std::string ask(const std::vector<std::string>& words) {
    std::vector<const char*> argv;
    std::vector<std::size_t> length;
    for (auto& w : words) {
      argv.push_back(w.data());
      length.push_back(w.size());
    }
    auto* reply = static_cast<redisReply*>(
        redisCommandArgv(context(), static_cast<int>(words.size()), argv.data(), length.data()));
    EXPECT_TRUE(reply);
    if (!reply) return {};
    const std::string text = reply->str ? std::string(reply->str, static_cast<std::size_t>(reply->len)) : "";
    EXPECT_NE(reply->type, REDIS_REPLY_ERROR) << text;
    freeReplyObject(reply);
    return text;
  }

 private:
  struct Free {
    void operator()(redisContext* c) const { redisFree(c); }
  };
  redisContext* context() {
    if (!context_ || context_->err) context_.reset(redisConnectUnix(socket().c_str()));
    return context_ && !context_->err ? context_.get() : nullptr;
  }
  std::filesystem::path folder_;
  pid_t pid_ = -1;
  std::unique_ptr<redisContext, Free> context_;
};

}  // namespace percept::testing

/// Skips the test by name where there is no redis-server; in CI that is a failure.
#define PERCEPT_NEED_REDIS()                                                                  \
  do {                                                                                        \
    if (!::percept::testing::RedisServer::available()) {                                      \
      if (::percept::testing::in_ci()) FAIL() << "no redis-server (./dev setup installs it)"; \
      GTEST_SKIP() << "needs redis-server: ./dev setup installs it";                          \
    }                                                                                         \
  } while (false)
