/// A connection to a Redis server, for the source and the outlet.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

struct redisContext;
struct redisReply;

namespace percept {

struct RedisAddress {
  std::string host, socket;  ///< socket: of a Unix socket, instead of host and port
  std::int64_t port = 0;
  /// "Redis HOST:PORT" or "Redis SOCKET".
  std::string text() const;
};

/// One thread. Nothing throws but for want of memory.
class RedisConnection {
 public:
  struct FreeReply {
    void operator()(redisReply* reply) const;
  };
  using Reply = std::unique_ptr<redisReply, FreeReply>;

  explicit RedisConnection(RedisAddress address) : address_(std::move(address)) {}
  /// False: error() says why.
  bool connect(double timeout_s);
  bool connected() const { return context_ != nullptr; }
  /// A command of up to 20 words, binary ones too. nullptr when the connection broke, which ends it, or when the server
  /// answered with an error: error() says so.
  Reply ask(std::initializer_list<std::string_view> words, std::int64_t timeout_ns);
  const std::string& error() const { return error_; }

 private:
  struct FreeContext {
    void operator()(redisContext* context) const;
  };
  RedisAddress address_;
  std::unique_ptr<redisContext, FreeContext> context_;
  std::string error_;
};

}  // namespace percept
