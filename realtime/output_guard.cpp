#include "realtime/output_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace percept {

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> for_each_row(std::vector<double> given, Index rows, double fallback, const std::string& where) {
  if (given.empty()) given = {fallback};
  if (given.size() == 1) given.resize(static_cast<std::size_t>(rows), given[0]);
  if (given.size() != static_cast<std::size_t>(rows))
    throw ConfigError(where, fmt::format("{} numbers", given.size()),
                      fmt::format("one, or one for each of {} rows", rows));
  return given;
}
}  // namespace

const char* text_of(Hold hold) {
  switch (hold) {
    case Hold::none:
      return "";
    case Hold::waiting:
      return "nothing has been decoded yet";
    case Hold::old_data:
      return "the newest data are too old";
    case Hold::missing:
      return "the decoder gives no number";
    case Hold::uncertain:
      return "the decoder is too uncertain";
    case Hold::channels:
      return "too many channels are bad";
    case Hold::emergency:
      return "emergency stop";
  }
  return "";
}

const Part& decoded_part(const StreamFormat& format) {
  const Part* mean = format.find_part("mean");
  return mean ? *mean : format.parts.at(0);
}
std::vector<std::string> decoded_rows(const StreamFormat& format) {
  const Part& state = decoded_part(format);
  const auto all = format.row_names();
  const auto first = all.begin() + format.part_offset(state.name);
  return {first, first + state.size()};
}

OutputGuard::OutputGuard(const StreamFormat& format, const Params& params, const std::string& where) : params_(params) {
  const Part& state = decoded_part(format);
  offset_ = format.part_offset(state.name);
  rows_ = state.size();
  names_ = decoded_rows(format);
  if (const Part* cov = format.find_part("covariance"); cov && cov->size() == rows_ * rows_)
    covariance_ = format.part_offset("covariance");
  params_.low = for_each_row(params.low, rows_, -HUGE_VAL, where + ".low");
  params_.high = for_each_row(params.high, rows_, HUGE_VAL, where + ".high");
  params_.max_sd = for_each_row(params.max_sd, rows_, HUGE_VAL, where + ".max_sd");
  if (!params.max_sd.empty() && covariance_ < 0)
    throw ConfigError(where + ".max_sd", "", "a decoded node with a covariance: this one gives none");
  velocity_.resize(static_cast<std::size_t>(rows_));
  for (auto& name : params.velocity_rows) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at == names_.end())
      throw ConfigError(where + ".velocity_rows", "\"" + name + "\"",
                        fmt::format("rows of the output: {}{}", fmt::join(names_, ", "), did_you_mean(name, names_)));
    velocity_[static_cast<std::size_t>(at - names_.begin())] = 1;
  }
  for (std::size_t i = 0; i < velocity_.size(); ++i) {
    if (!(params_.low[i] <= params_.high[i]))
      throw ConfigError(where + ".low", fmt::format("{}", params_.low[i]),
                        fmt::format("at most high, which is {}", params_.high[i]));
    if (velocity_[i] && (params_.low[i] > 0 || params_.high[i] < 0))
      throw ConfigError(where + ".low", fmt::format("[{}, {}]", params_.low[i], params_.high[i]),
                        fmt::format("limits around zero: '{}' stands still while it is held", names_[i]));
  }
  decoded_.assign(static_cast<std::size_t>(rows_), kNaN);
  sent_ = decoded_;
  sd_ = decoded_;
  cov_.assign(static_cast<std::size_t>(covariance_ < 0 ? 0 : rows_ * rows_), kNaN);
}

double OutputGuard::covariance(Index i, Index j) const noexcept {
  return covariance_ < 0 ? kNaN : cov_[static_cast<std::size_t>(i * rows_ + j)];
}

void OutputGuard::take(ConstFrames frame) noexcept {
  const auto read = [&](auto span) {
    const auto* x = span.frame(span.frames - 1);
    for (Index i = 0; i < rows_; ++i) decoded_[static_cast<std::size_t>(i)] = static_cast<double>(x[offset_ + i]);
    if (covariance_ >= 0)
      for (std::size_t i = 0; i < cov_.size(); ++i)
        cov_[i] = static_cast<double>(x[covariance_ + static_cast<Index>(i)]);
  };
  if (frame.scalar == Scalar::f32) read(frame.as<float>());
  else read(frame.as<double>());
  frame_hold_ = Hold::none;
  limited_now_ = false;
  for (std::size_t i = 0; i < decoded_.size(); ++i) {
    if (covariance_ >= 0) {
      const double variance = cov_[i * decoded_.size() + i];
      sd_[i] = variance >= 0 ? std::sqrt(variance) : kNaN;
      // a variance that is no number is no reason to trust
      if (!(sd_[i] <= params_.max_sd[i]) && !std::isinf(params_.max_sd[i])) frame_hold_ = Hold::uncertain;
    }
    if (!std::isfinite(decoded_[i])) {
      frame_hold_ = Hold::missing;
      break;
    }
    const double inside = std::clamp(decoded_[i], params_.low[i], params_.high[i]);
    limited_now_ = limited_now_ || inside != decoded_[i];
    decoded_[i] = inside;
  }
  decide();
  if (hold_ == Hold::none) limited_ += limited_now_ ? 1 : 0;
  else ++held_frames_;
}

void OutputGuard::conditions(double age_s, double bad_channels) noexcept {
  age_s_ = age_s;
  bad_channels_ = bad_channels;
  decide();
}

void OutputGuard::decide() noexcept {
  const Hold was = hold_;
  if (emergency_) hold_ = Hold::emergency;
  else if (frame_hold_ == Hold::waiting) hold_ = Hold::waiting;
  else if (params_.max_age_s > 0 && !(age_s_ <= params_.max_age_s)) hold_ = Hold::old_data;
  else if (bad_channels_ > params_.max_bad_channels) hold_ = Hold::channels;
  else hold_ = frame_hold_;
  if (was == Hold::none && hold_ != Hold::none) ++holds_;
  if (hold_ == Hold::none) {
    std::copy(decoded_.begin(), decoded_.end(), sent_.begin());
    return;
  }
  const bool nothing = params_.hold == "nothing";
  for (std::size_t i = 0; i < sent_.size(); ++i) {
    if (nothing) sent_[i] = kNaN;
    else if (velocity_[i]) sent_[i] = 0;
  }
}

}  // namespace percept
