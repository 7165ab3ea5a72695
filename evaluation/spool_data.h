/// The training frames of one learned node as its fitter sees them. Internal to evaluation/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/model.h"
#include "core/spool.h"

namespace percept::evaluation {

/// Kept on disk where they are many.
class SpoolData final : public Data {
 public:
  /// y without parts: no target.
  SpoolData(StreamFormat x, StreamFormat y);
  const StreamFormat& x_format() const override { return x_format_; }
  const StreamFormat& y_format() const override { return y_format_; }
  Index frames() const override { return x_.frames(); }
  /// Frames with a missing value in their target.
  Index without_target() const { return without_target_; }
  /// What is appended from now on does not follow what was appended before.
  void start_segment() { starts_.push_back(x_.frames()); }
  /// y: outputs x frames, or empty. One key and one group a frame.
  void append(ConstFrames x, const Eigen::MatrixXd& y, const std::vector<std::int64_t>& keys,
              const std::vector<std::int32_t>& groups);
  /// Moves the target against the input by `shift` frames, around the end.
  void shift_target(Index shift);
  /// Pairs inputs and targets at random: the same for the same seed, number and count of frames.
  void permute_target(std::uint64_t seed, std::int64_t number);
  void pass(const std::function<void(const TrainingBlock&)>& f,
            std::optional<std::uint64_t> shuffle_seed) const override;

 private:
  /// Frame k gets the target of frame order[k].
  void reorder_target(const std::vector<Index>& order);
  StreamFormat x_format_, y_format_;
  Spool x_, y_;
  std::unique_ptr<Spool> shifted_;
  std::vector<std::int64_t> keys_;
  std::vector<std::int32_t> groups_;
  std::vector<Index> starts_;
  Index without_target_ = 0;
};

}  // namespace percept::evaluation
