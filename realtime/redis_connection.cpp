#include "realtime/redis_connection.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <array>
#include <cmath>

#include "realtime/descriptor.h"

namespace percept {

std::string RedisAddress::text() const {
  return socket.empty() ? fmt::format("Redis {}:{}", host, port) : "Redis " + socket;
}

void RedisConnection::FreeReply::operator()(redisReply* reply) const { freeReplyObject(reply); }
void RedisConnection::FreeContext::operator()(redisContext* context) const { redisFree(context); }

bool RedisConnection::connect(double timeout_s) {
  const timeval limit{static_cast<time_t>(timeout_s),
                      static_cast<suseconds_t>((timeout_s - std::floor(timeout_s)) * 1e6) + 1};
  context_.reset(address_.socket.empty()
                     ? redisConnectWithTimeout(address_.host.c_str(), static_cast<int>(address_.port), limit)
                     : redisConnectUnixWithTimeout(address_.socket.c_str(), limit));
  if (context_ && !context_->err) {
    error_.clear();
    return true;
  }
  error_ = context_ ? context_->errstr : "no memory";
  context_.reset();
  return false;
}

RedisConnection::Reply RedisConnection::ask(std::initializer_list<std::string_view> words, std::int64_t timeout_ns) {
  std::array<const char*, 20> argv{};
  std::array<std::size_t, 20> length{};
  int n = 0;
  for (auto& w : words) {
    argv[static_cast<std::size_t>(n)] = w.data();
    length[static_cast<std::size_t>(n++)] = w.size();
  }
  const NoBrokenPipe guard;
  redisSetTimeout(context_.get(), {static_cast<time_t>(timeout_ns / 1'000'000'000),
                                   static_cast<suseconds_t>(timeout_ns % 1'000'000'000 / 1000)});
  Reply reply(static_cast<redisReply*>(redisCommandArgv(context_.get(), n, argv.data(), length.data())));
  if (!reply) {
    error_ = context_->err ? context_->errstr : "no answer";
    context_.reset();
  } else if (reply->type == REDIS_REPLY_ERROR) {
    error_.assign(reply->str, static_cast<std::size_t>(reply->len));
    reply.reset();
  }
  return reply;
}

}  // namespace percept
