/// Packets or lines of text from standard input or any other descriptor.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "realtime/descriptor.h"
#include "realtime/wire_intake.h"

namespace percept {

/// `packets`: percept's own (realtime/wire.h), one after the other; what lies between two that can be read is skipped
/// and counted as one malformed packet. `lines`: a frame is a line of numbers with commas, tabs or spaces between them;
/// an empty cell or nan is missing; a line of another shape is a frame that is missing, since lines are counted.
class PipeSource final : public Source {
 public:
  struct Params {
    std::string format = "packets", name = "activity";
    std::int64_t rows = 0, packet = 64;
    double rate_hz = 0, wait_s = 10;
    std::vector<std::string> labels;
    static constexpr auto fields() {
      return std::tuple{
          choice("format", &Params::format, "What comes: percept's packets, or lines of numbers.", "packets|lines"),
          field("name", &Params::name, "", "Name of the stream."),
          field("rows", &Params::rows, "1", "Rows; 0: those of the first packet or line.", 0, 1 << 20),
          field("rate_hz", &Params::rate_hz, "Hz", "Frames a second; 0: that of the first packet.", 0, 1e6),
          field("packet", &Params::packet, "frames", "The most frames handed over at once.", 1, 65536),
          field("wait_s", &Params::wait_s, "s", "How long the first packet or line is waited for.", 0, 1e6),
          field("labels", &Params::labels, "", "Labels of events that may come; others are told as \"unlisted\".")};
    }
  };
  /// Does not own the descriptor. Throws ConfigError when the format cannot be told, DataError when what comes first is
  /// neither packet nor line.
  PipeSource(int fd, const Params& params, const std::string& where);

  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return intake_.format(); }
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override;
  bool real_time() const override { return true; }
  SourceCounts counts() const override;
  std::string trouble() const override { return intake_.trouble(); }

 private:
  enum class Step { done, more, end };
  /// Reads what there is into the buffer, waiting until `until_ns`.
  Step fill(std::int64_t until_ns) noexcept;
  Step next_packet(Packet& packet) noexcept;
  Step next_lines(Packet& packet) noexcept;
  std::string_view line() noexcept;
  bool read_line(std::string_view text, float* row) noexcept;

  WireIntake intake_;
  SourceInfo info_;
  int fd_;
  bool lines_;
  Descriptor wake_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0, end_ = 0;  ///< of what was read and not handed over
  bool at_end_ = false, in_rubbish_ = false, long_line_ = false;
  std::int64_t received_ns_ = 0;
  std::vector<float> frames_;
  std::int64_t next_line_ = 0;
  std::atomic<bool> stopped_{false};
  std::atomic<std::int64_t> packets_{0}, infinite_{0};
};

}  // namespace percept
