#include "evaluation/spool_data.h"

#include <algorithm>

#include "numerics/random.h"

namespace percept::evaluation {

SpoolData::SpoolData(StreamFormat x, StreamFormat y)
    : x_format_(std::move(x)), y_format_(std::move(y)), x_(x_format_.size(), x_format_.scalar, ""),
      y_(std::max<Index>(1, y_format_.size()), Scalar::f64, "") {
  y_format_.scalar = Scalar::f64;
}

void SpoolData::append(ConstFrames x, const Eigen::MatrixXd& y, const std::vector<std::int64_t>& keys,
                       const std::vector<std::int32_t>& groups) {
  x_.append(x);
  if (y_format_.size()) y_.append(ConstFrames(y.data(), Scalar::f64, y.rows(), y.cols(), y.rows()));
  without_target_ += y.array().isNaN().colwise().any().count();
  keys_.insert(keys_.end(), keys.begin(), keys.end());
  groups_.insert(groups_.end(), groups.begin(), groups.end());
}

void SpoolData::shift_target(Index shift) {
  const Index n = frames();
  if (!y_format_.size() || n == 0 || shift % n == 0) return;
  std::vector<Index> order(static_cast<std::size_t>(n));
  for (Index k = 0; k < n; ++k) order[static_cast<std::size_t>(k)] = ((k - shift) % n + n) % n;
  reorder_target(order);
}

void SpoolData::permute_target(std::uint64_t seed, std::int64_t number) {
  if (y_format_.size() && frames() > 0) reorder_target(random_order(KeyedRandom(seed, "pairing"), frames(), number));
}

void SpoolData::reorder_target(const std::vector<Index>& order) {
  const Index n = frames();
  Eigen::MatrixXd all(y_.rows(), n);
  y_.read(0, MutableFrames(all.data(), Scalar::f64, all.rows(), n, all.rows()));
  const Eigen::MatrixXd moved = all(Eigen::all, order);
  shifted_ = std::make_unique<Spool>(y_.rows(), Scalar::f64, "");
  shifted_->append(ConstFrames(moved.data(), Scalar::f64, moved.rows(), n, moved.rows()));
}

void SpoolData::pass(const std::function<void(const TrainingBlock&)>& f,
                     std::optional<std::uint64_t> shuffle_seed) const {
  constexpr Index kBlock = 4096;
  struct Piece {
    Index first, n, segment;
  };
  std::vector<Piece> pieces;
  for (std::size_t s = 0; s < starts_.size(); ++s) {
    const Index end = s + 1 < starts_.size() ? starts_[s + 1] : frames();
    for (Index a = starts_[s]; a < end; a += kBlock)
      pieces.push_back({a, std::min(kBlock, end - a), static_cast<Index>(s)});
  }
  if (shuffle_seed) {
    const KeyedRandom random(*shuffle_seed, "blocks");
    auto key = [&](const Piece& p) { return random.uniform(p.first); };
    std::sort(pieces.begin(), pieces.end(), [&](auto& a, auto& b) { return key(a) < key(b); });
  }
  std::vector<std::byte> x(static_cast<std::size_t>(x_.rows() * kBlock) * bytes_of(x_.scalar()));
  Eigen::MatrixXd y(y_format_.size(), kBlock);
  for (auto& p : pieces) {
    MutableFrames xs(x.data(), x_.scalar(), x_.rows(), p.n, x_.rows()),
        ys(y.data(), Scalar::f64, y.rows(), p.n, y.rows());
    x_.read(p.first, xs);
    if (y.rows()) (shifted_ ? *shifted_ : y_).read(p.first, ys);
    TrainingBlock b;
    b.x = xs;
    b.y = ys;
    b.keys = std::span(keys_).subspan(static_cast<std::size_t>(p.first), static_cast<std::size_t>(p.n));
    b.groups = std::span(groups_).subspan(static_cast<std::size_t>(p.first), static_cast<std::size_t>(p.n));
    b.segment = p.segment;
    f(b);
  }
}

}  // namespace percept::evaluation
