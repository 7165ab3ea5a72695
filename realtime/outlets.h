/// Where decoded states go: the other end of the sources.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "realtime/device_spec.h"
#include "realtime/output_guard.h"

namespace percept {

struct RealTimeParams;

/// One decoded state as it is sent out.
struct SentState {
  std::int64_t frame = 0;  ///< of the decoded node
  double time_s = 0;       ///< recording time of that frame
  const double* value = nullptr;
  const double* sd = nullptr;
  Index rows = 0;
  Hold hold = Hold::none;
  Index clicks = 0;              ///< since the state before; none while it is held
  std::int64_t received_ns = 0;  ///< when the packet behind it arrived, on the steady clock; 0: no packet (watchdog)
};

/// Takes states from the real-time thread. Made by a function that throws when it cannot be had; after that nothing
/// throws, and what cannot be sent is counted.
class Outlet {
 public:
  virtual ~Outlet() = default;
  virtual std::string device() const = 0;  ///< who gets it, in words
  /// Never waits, never allocates. False: it was lost (the receiver is slow or away).
  virtual bool send(const SentState& state) noexcept = 0;
  /// A thread of its own, if it has one, gets a real-time priority where permitted.
  virtual void raise(const RealTimeParams&) noexcept {}
  /// Sends what waits, for no longer than a second.
  virtual void finish() noexcept {}
  virtual std::string trouble() const { return {}; }
  std::int64_t sent() const noexcept { return sent_.value(); }
  std::int64_t lost() const noexcept { return lost_.value(); }

 protected:
  Counter sent_, lost_;
};

/// What an outlet is told of the states before the first one.
struct OutletSettings {
  std::vector<std::string> rows;
  double rate_hz = 0;
  bool clicks = false;  ///< the session has a click decoder
};

/// Kinds of outlets: udp (percept's own packet), stdout (a line of JSON each), redis (XADD in BRAND's layout), lsl.
const std::vector<DeviceKind>& outlet_kinds();
/// "KIND:KEY=VALUE,...". Throws ConfigError.
DeviceSpec parse_outlet(std::string_view text, const std::string& where);
DeviceSpec read_outlet(const Value& table, const std::string& where);
/// Opens one. Throws ConfigError or DataError.
std::unique_ptr<Outlet> make_outlet(const DeviceSpec& spec, const OutletSettings& settings, const std::string& where);

}  // namespace percept
