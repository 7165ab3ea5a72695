/// A stream of Lab Streaming Layer (Kothe et al., Imaging Neuroscience 3 (2025)), with its markers where there are any.
#pragma once

#include <memory>
#include <string>
#include <tuple>

#include "core/params.h"
#include "realtime/lsl_library.h"
#include "realtime/source.h"

namespace percept {

/// Samples are counted as they come; a stamp that is later than the count says by more than gap_s is a gap of as many
/// frames. The outlet's clock is measured by the library on a thread of its own.
class LslSource final : public Source {
 public:
  struct Params {
    std::string stream, type, source_id, query, markers, name;
    double wait_s = 10, gap_s = 0.1;
    std::int64_t packet = 64, buffer_s = 60;
    static constexpr auto fields() {
      return std::tuple{
          field("stream", &Params::stream, "", "Name of the outlet; empty: any."),
          field("type", &Params::type, "", "Content type of the outlet, such as EEG; empty: any."),
          field("source_id", &Params::source_id, "", "Which one, where several match; empty: any."),
          field("query", &Params::query, "", "XPath predicate, instead of the three above."),
          field("markers", &Params::markers, "", "Name of an outlet with text markers: they become events."),
          field("name", &Params::name, "", "Name of percept's stream; empty: that of the outlet."),
          field("wait_s", &Params::wait_s, "s", "How long the outlet is waited for.", 0, 1e6),
          field("gap_s", &Params::gap_s, "s", "A stamp later than the count by more than this is a gap.", 1e-4, 1e3),
          field("packet", &Params::packet, "frames", "The most frames handed over at once.", 1, 65536),
          field("buffer_s", &Params::buffer_s, "s", "What the library keeps when it is not asked.", 1, 3600)};
    }
  };
  /// Loads the library and waits for the outlet. Throws ConfigError when there is none, or more than one.
  LslSource(const Params& params, const std::string& where, std::shared_ptr<const LslLibrary> library = load_lsl());
  ~LslSource() override;

  const SourceInfo& info() const override;
  const StreamFormat& format() const override;
  void start() override;
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override;
  bool real_time() const override { return false; }  // the library locks and allocates
  SourceCounts counts() const override;
  std::string trouble() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace percept
