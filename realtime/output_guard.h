/// Decides whether what was decoded may be acted upon, and what is sent out in its place when not.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "core/stream.h"

namespace percept {

/// Why the output is held.
enum class Hold : std::uint8_t {
  none,
  waiting,    ///< nothing was decoded yet
  old_data,   ///< the newest data are older than max_age_s
  missing,    ///< the decoder gave NaN
  uncertain,  ///< its standard deviation is beyond max_sd
  channels,   ///< more than max_bad_channels of the inputs' channels are masked
  emergency   ///< the operator stopped it: only the operator lets it go on
};
/// The reason as a sentence.
const char* text_of(Hold hold);

/// What of a node's frame is the decoded state: its part "mean" where there is one, else the first.
const Part& decoded_part(const StreamFormat& format);
/// The names of its rows.
std::vector<std::string> decoded_rows(const StreamFormat& format);

/// One thread. Allocates nothing once made.
///
/// The output has rows of a decoded state, and perhaps its covariance. While it is held, the rows stand where they last
/// were (hold = "freeze"; rows of velocity stand still: zero) or are NaN (hold = "nothing"). Whatever is sent lies
/// inside the limits.
class OutputGuard {
 public:
  struct Params {
    std::vector<double> low{}, high{}, max_sd{};
    std::vector<std::string> velocity_rows{};
    double max_age_s = 0.2, max_bad_channels = 0.5;
    std::string hold = "freeze";
    static constexpr auto fields() {
      return std::tuple{
          field("low", &Params::low, "unit of the output", "Lower limit of every decoded row, or one for all."),
          field("high", &Params::high, "unit of the output", "Upper limit of every decoded row, or one for all."),
          field("max_sd", &Params::max_sd, "unit of the output",
                "Held while the decoder's standard deviation of a row is beyond this; one for each row, or for all.", 0,
                1e300),
          field("velocity_rows", &Params::velocity_rows, "",
                "Names of rows that are zero while the output is held; the others stay where they were."),
          field("max_age_s", &Params::max_age_s, "s",
                "Watchdog: held while the newest data are older than this; 0: no limit.", 0, 3600),
          field("max_bad_channels", &Params::max_bad_channels, "1",
                "Held while more than this share of the channels is masked.", 0, 1),
          choice("hold", &Params::hold, "What is sent while it is held: the last good state, or NaN.",
                 "freeze|nothing")};
    }
  };
  /// format: of the guarded node: decoded_part() of it is the state, "covariance" beside it where there is one.
  /// Throws ConfigError naming `where`.
  OutputGuard(const StreamFormat& format, const Params& params, const std::string& where);

  Index rows() const noexcept { return rows_; }
  const std::vector<std::string>& row_names() const { return names_; }
  /// One frame of the node. What may be sent is in value() and sd() afterwards.
  void take(ConstFrames frame) noexcept;
  /// The time passes, or conditions outside change: the same, without a new frame.
  void conditions(double age_s, double bad_channels) noexcept;
  void emergency(bool on) noexcept { emergency_ = on; }

  Hold hold() const noexcept { return hold_; }
  const double* value() const noexcept { return sent_.data(); }
  const double* sd() const noexcept { return sd_.data(); }    ///< NaN without a covariance
  double covariance(Index i, Index j) const noexcept;         ///< of the last frame
  std::int64_t limited() const noexcept { return limited_; }  ///< frames in which a limit held a row
  std::int64_t held_frames() const noexcept { return held_frames_; }
  std::int64_t holds() const noexcept { return holds_; }  ///< how often it came to be held

 private:
  void decide() noexcept;

  Params params_;
  Index rows_ = 0, offset_ = 0, covariance_ = -1;
  std::vector<std::string> names_;
  std::vector<std::uint8_t> velocity_;
  std::vector<double> decoded_, sent_, sd_, cov_;
  Hold hold_ = Hold::waiting, frame_hold_ = Hold::waiting;
  bool emergency_ = false, limited_now_ = false;
  double age_s_ = 0, bad_channels_ = 0;
  std::int64_t limited_ = 0, held_frames_ = 0, holds_ = 0;
};

}  // namespace percept
