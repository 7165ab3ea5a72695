#include <cmath>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = x - mean of the good rows that are not NaN, frame by frame.
class CommonAverage final : public Typed<CommonAverage> {
 public:
  using Params = NoParams;
  explicit CommonAverage(Params) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "common_average");
    const auto rows = channels_of(in);
    good_.clear();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      require(rows[r].unit == rows[0].unit, context, "", "row '" + rows[r].name + "' in " + rows[r].unit,
              "rows of one unit, like '" + rows[0].name + "' in " + rows[0].unit);
      if (rows[r].good) good_.push_back(static_cast<Index>(r));
    }
    require(good_.size() >= 2, context, "", std::to_string(good_.size()) + " good rows", "at least two");
    return in;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      double sum = 0;
      Index n = 0;
      for (Index r : good_)
        if (!std::isnan(x[r])) {
          sum += static_cast<double>(x[r]);
          ++n;
        }
      // a row minus itself would read as silence
      const double mean = n >= 2 ? sum / static_cast<double>(n) : std::numeric_limits<double>::quiet_NaN();
      T* y = out.frame(t);
      for (Index r = 0; r < in.rows; ++r) y[r] = static_cast<T>(static_cast<double>(x[r]) - mean);
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  std::vector<Index> good_;  ///< rows that the average is over
};
}  // namespace

StageInfo info_common_average() {
  auto i =
      stage_info<CommonAverage>("common_average", "preprocessing",
                                "Takes from every row the mean of the good rows of the same frame. Rows that are NaN "
                                "or marked bad are left out of the mean; with fewer than two rows left the frame is "
                                "NaN.");
  i.real_time = true;
  i.samples = [] { return both_scalars({}); };
  return i;
}

}  // namespace percept
