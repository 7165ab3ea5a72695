/// What of a request to the page of a live session is percept's own to judge: who may ask, and what a command says.
#pragma once

#include <string>
#include <string_view>

#include "core/stream.h"

namespace percept {

/// Who may ask. The address is the key: "/TOKEN/" begins every path.
class PageGate {
 public:
  /// prefix: "/TOKEN/"; host: as the Host header has to name it.
  PageGate(std::string prefix, std::string host) : prefix_(std::move(prefix)), host_(std::move(host)) {}
  /// 0: it may be answered; 404: not the address; 403: under another name of this machine, which is somebody else's page
  /// that points here. Takes as long for a wrong token as for a right one.
  int refuses(std::string_view path, std::string_view host) const noexcept;
  /// A command has to come from the page itself.
  bool is_own(std::string_view origin) const noexcept;

 private:
  std::string prefix_, host_;
};

struct PageCommand {
  enum class What { emergency, release, stop, mask, unmask, start, pause, recalibrate };
  What what{};
  int input = 0;  ///< of mask and unmask
  Index row = 0;
};

/// The body of a command: {"do": "mask", "input": 0, "row": 3}. Whether there is such a row is not asked. Throws Error.
PageCommand read_page_command(std::string_view body);

}  // namespace percept
