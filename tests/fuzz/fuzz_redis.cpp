/// What a Redis server answers: bytes of its protocol, through hiredis, to packets.
#include <hiredis/hiredis.h>

#include "realtime/redis_source.h"
#include "tests/fuzz/fuzz.h"

namespace {
std::string bulk(const std::string& s) { return "$" + std::to_string(s.size()) + "\r\n" + s + "\r\n"; }
std::string reply(const std::vector<std::string>& fields) {
  std::string text = "*1\r\n*2\r\n" + bulk("s") + "*1\r\n*2\r\n" + bulk("1-0");
  text += "*" + std::to_string(fields.size()) + "\r\n";
  for (auto& f : fields) text += bulk(f);
  return text;
}
}  // namespace

std::vector<std::string> percept::fuzz::seeds() {
  const std::string samples("\1\0\2\0\3\0\4\0", 8), u64("\5\0\0\0\0\0\0\0", 8), u32("\5\0\0\0\6\0\0\0", 8);
  return {reply({"samples", samples, "i", u64, "ts", u64, "sync", "{\"clock\": 7}", "timestamps", u32}),
          reply({"samples", samples, "i", "12", "ts", "1.5", "sync", "{}", "timestamps", u64 + u64}),
          reply({"other", samples}),
          "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n",
          "*-1\r\n",
          "-ERR no\r\n",
          ":5\r\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  redisReader* reader = redisReaderCreate();
  void* answer = nullptr;
  const bool whole = redisReaderFeed(reader, reinterpret_cast<const char*>(data), bytes) == REDIS_OK &&
                     redisReaderGetReply(reader, &answer) == REDIS_OK && answer;
  if (whole) {
    const auto& tree = *static_cast<const redisReply*>(answer);
    for (const char* counter : {"", "i", "timestamps", "sync.clock"})
      for (const char* type : {"int16", "float32", "float64"})
        for (bool by_stream : {true, false}) {
          RedisParams p;
          p.stream = "s";
          p.rate_hz = 1000;
          p.counter = counter;
          p.type = type;
          p.frames = 2;
          p.ticks = 3;
          RedisIntake intake(p, "fuzz");
          bool prepared = false;
          read_redis_reply(
              tree, by_stream, [&] { intake.count_malformed(); },
              [&](std::string_view, RedisFields fields) {
                const Index rows = intake.rows_of(fields);
                if (!prepared) intake.prepare(rows > 0 && rows < 1000 ? rows : 2);
                prepared = true;
                Packet packet;
                if (!intake.take(fields, 1, packet)) return;
                const Eigen::MatrixXd x = to_matrix(packet.x);
                for (double v : x.reshaped())
                  if (std::isinf(v)) std::abort();
              });
        }
  }
  if (answer) freeReplyObject(answer);
  redisReaderFree(reader);
  return 0;
}
