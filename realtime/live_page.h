/// The page of a live session: served by the program itself, to one machine, for those who have its address.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

#include "core/params.h"
#include "realtime/live_loop.h"

namespace percept {

/// Shows the state, the signal, channels, latencies and counters of a loop, and takes its commands. It looks at the loop
/// from threads of its own (Latest, rings): however many browsers, however slow, the loop does not know of them.
///
/// The address holds a random token, without which nothing is answered. Requests must name the page's own host, and
/// commands must come from the page itself (Origin), so that no other page can send them. Nothing is loaded from
/// elsewhere. A request is limited in size and has a second to be there, whatever its bytes; so many may be answered at
/// once, so many wait, and the next is closed.
class LivePage {
 public:
  struct Params {
    std::string bind = "127.0.0.1";
    std::int64_t port = 0, viewers = 4;
    static constexpr auto fields() {
      return std::tuple{field("bind", &Params::bind, "",
                              "Address to listen on. The page has no encryption: leave it to this machine."),
                        field("port", &Params::port, "", "Its port; 0: any free one.", 0, 65535),
                        field("viewers", &Params::viewers, "1", "Browsers that may look at once.", 1, 32)};
    }
  };
  /// about: {name, node, rows: [...], units: [...], inputs: [{name, rate_hz, rows: [...]}], task?: {use, extent,
  /// hold_s, dwell, keys, side, calibration}}. Listens from here on.
  /// Throws ConfigError naming `where` when the port cannot be had.
  LivePage(LiveLoop& loop, const Value& about, const Params& params, const std::string& where);
  ~LivePage();
  LivePage(const LivePage&) = delete;
  LivePage& operator=(const LivePage&) = delete;

  /// With the token: who has it controls the session.
  const std::string& url() const { return url_; }
  /// Requests that were refused: no token, another origin, malformed, too large, too slow, or one too many.
  std::int64_t refused() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::string url_;
};

}  // namespace percept
