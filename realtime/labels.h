/// Labels of events that come from outside.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/stream.h"

namespace percept {

/// Interning a label takes memory for ever and a lock, so a stranger must not do it at will: those that are expected are
/// interned before, at most kMost others on the way where that is allowed, and all the rest are told as "unlisted".
class Labels {
 public:
  static constexpr std::size_t kMost = 256;
  /// may_add: of() is not called on the real-time thread.
  explicit Labels(const std::vector<std::string>& expected, bool may_add = false) : may_add_(may_add) {
    for (auto& text : expected) known_.emplace_back(text, Label::of(text));
    left_ = kMost;
  }
  Label of(std::string_view text) {
    for (auto& [name, label] : known_)
      if (name == text) return label;
    if (!may_add_ || left_ == 0) return unlisted_;
    --left_;
    return known_.emplace_back(text, Label::of(text)).second;
  }

 private:
  std::vector<std::pair<std::string, Label>> known_;
  Label unlisted_ = Label::of("unlisted");
  bool may_add_;
  std::size_t left_ = 0;
};

}  // namespace percept
