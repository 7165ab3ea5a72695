#include <cmath>
#include <limits>

#include "preprocessing/bins.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// Frames [j n, (j + 1) n) become frame j, which stands for their centre.
class Bin final : public Typed<Bin> {
 public:
  struct Params {
    double bin_s = 0.1;
    std::string statistic = "sum";
    static constexpr auto fields() {
      return std::tuple{field("bin_s", &Params::bin_s, "s", "Length of a bin: a whole number of frames.", 1e-9, 1e9),
                        choice("statistic", &Params::statistic,
                               "sum of the frames, count of those that are not zero (both NaN when a frame is "
                               "missing), or mean of those that are there (NaN when none is).",
                               "sum|mean|count")};
    }
  };
  explicit Bin(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "bin");
    StreamFormat out = in;
    bins_.prepare(p_.bin_s, out, context);
    sum_.resize(in.size());
    there_.resize(static_cast<std::size_t>(in.size()));
    reset();
    if (p_.statistic == "count")
      for (auto& part : out.parts) {
        part.unit = "1";
        for (auto& c : part.rows) c.unit = "";
      }
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    const bool count = p_.statistic == "count", mean = p_.statistic == "mean";
    Index written = 0;
    bins_.cut(
        in, filled_,
        [&](FrameSpan<const T> piece) {
          for (Index t = 0; t < piece.frames; ++t) {
            const T* x = piece.frame(t);
            for (Index r = 0; r < in.rows; ++r)
              if (!std::isnan(x[r])) {
                sum_[r] += count ? (x[r] != 0 ? 1.0 : 0.0) : static_cast<double>(x[r]);
                ++there_[static_cast<std::size_t>(r)];
              }
          }
        },
        [&] {
          T* y = out.frame(written++);
          for (Index r = 0; r < in.rows; ++r) {
            const auto n = there_[static_cast<std::size_t>(r)];
            // 0 / 0 is the NaN of a bin that has nothing
            y[r] = mean                ? static_cast<T>(sum_[r] / static_cast<double>(n))
                   : n == bins_.length ? static_cast<T>(sum_[r])
                                       : std::numeric_limits<T>::quiet_NaN();
          }
          empty();
        });
    return written;
  }
  void reset() noexcept override {
    empty();
    filled_ = 0;
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("sum", sum_);
    v("there", there_);
    v("filled", filled_);
  }
  Traits traits() const override {
    return {.causal = true,
            .real_time = true,
            .per_row = true,
            .latency_s = bins_.latency_s,
            .memory_frames = bins_.length - 1};
  }

 private:
  void empty() noexcept {
    sum_.setZero();
    std::fill(there_.begin(), there_.end(), 0);
  }
  Params p_;
  Bins bins_;
  Eigen::VectorXd sum_;              ///< of the bin that is filling, one a row
  std::vector<std::int64_t> there_;  ///< its frames that were not NaN
  Index filled_ = 0;                 ///< its frames so far
};
}  // namespace

StageInfo info_bin() {
  auto i = stage_info<Bin>(
      "bin", "preprocessing",
      "Sum, mean or count in bins of bin_s seconds. A bin stands for the middle of its frames; one that "
      "is not full at the end of the recording is left out.");
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const char* statistic : {"sum", "mean", "count"}) {
      Sample s;
      s.params = Value::object({{"bin_s", 0.07}, {"statistic", statistic}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
