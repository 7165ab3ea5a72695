#include "preprocessing/iir.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "numerics/denormals.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
using std::numbers::pi;
using Complex = std::complex<double>;
using Roots = std::vector<Complex>;

/// gain * prod(s - zeros) / prod(s - poles)
struct Rational {
  Roots zeros, poles;
  double gain = 1;
  /// Zeros at infinity.
  Index excess() const { return static_cast<Index>(poles.size()) - static_cast<Index>(zeros.size()); }
};

Complex product_of_minus(const Roots& roots) {
  Complex p = 1;
  for (const Complex& r : roots) p *= -r;
  return p;
}

/// Low-pass with its edge at 1 rad/s. Roots with an imaginary part come in exact conjugate pairs.
Rational prototype(const std::string& family, Index order, double ripple_db, double stop_db) {
  Rational f;
  const auto n = static_cast<double>(order);
  const bool butterworth = family == "butterworth", first = family == "chebyshev1";
  const double loss = std::sqrt(std::expm1((first ? ripple_db : stop_db) * std::numbers::ln10 / 10));
  const double mu = butterworth ? 0 : std::asinh(first ? 1 / loss : loss) / n;
  const double wide = butterworth ? 1 : std::sinh(mu), high = butterworth ? 1 : std::cosh(mu);
  auto pair = [](Roots& to, Complex root) {
    to.push_back(root);
    if (root.imag() != 0) to.push_back(std::conj(root));
  };
  for (Index m = order % 2 == 0 ? 1 : 0; m < order; m += 2) {
    const double angle = pi * static_cast<double>(m) / (2 * n);
    Complex pole{-wide * std::cos(angle), m == 0 ? 0.0 : high * std::sin(angle)};
    if (!butterworth && !first) {
      pole = 1.0 / pole;
      if (m > 0) pair(f.zeros, {0, 1 / std::sin(angle)});
    }
    pair(f.poles, pole);
  }
  f.gain = (product_of_minus(f.poles) / product_of_minus(f.zeros)).real();
  // an even Chebyshev filter of the first kind starts in a trough
  if (first && order % 2 == 0) f.gain /= std::sqrt(1 + loss * loss);
  return f;
}

void scale_low(Rational& f, double edge) {
  f.gain *= std::pow(edge, static_cast<double>(f.excess()));
  for (Complex& z : f.zeros) z *= edge;
  for (Complex& p : f.poles) p *= edge;
}

/// s -> edge / s
void turn_high(Rational& f, double edge) {
  f.gain *= (product_of_minus(f.zeros) / product_of_minus(f.poles)).real();
  const Index excess = f.excess();
  for (Complex& z : f.zeros) z = edge / z;
  for (Complex& p : f.poles) p = edge / p;
  f.zeros.insert(f.zeros.end(), static_cast<std::size_t>(excess), 0.0);
}

/// s -> (s^2 + centre^2) / (width s), each root into two; of a root and its conjugate the results are conjugates.
Roots split(const Roots& roots, double centre) {
  Roots two;
  for (const Complex& r : roots) {
    Complex root = std::sqrt(r * r - centre * centre);
    if (r.imag() == 0 && r.real() * r.real() < centre * centre) {
      const double height = std::sqrt(centre * centre - r.real() * r.real());
      two.emplace_back(r.real(), height);
      two.emplace_back(r.real(), -height);
      continue;
    }
    two.push_back(r + root);
    two.push_back(r - root);
  }
  return two;
}

void spread_band(Rational& f, double low, double high) {
  const double width = high - low, centre = std::sqrt(low * high);
  const Index excess = f.excess();
  f.gain *= std::pow(width, static_cast<double>(excess));
  for (Roots* roots : {&f.zeros, &f.poles}) {
    for (Complex& r : *roots) r *= width / 2;
    *roots = split(*roots, centre);
  }
  f.zeros.insert(f.zeros.end(), static_cast<std::size_t>(excess), 0.0);
}

void spread_stop(Rational& f, double low, double high) {
  const double width = high - low, centre = std::sqrt(low * high);
  const Index excess = f.excess();
  f.gain *= (product_of_minus(f.zeros) / product_of_minus(f.poles)).real();
  for (Roots* roots : {&f.zeros, &f.poles}) {
    for (Complex& r : *roots) r = width / 2 / r;
    *roots = split(*roots, centre);
  }
  for (Index k = 0; k < excess; ++k) {
    f.zeros.emplace_back(0, centre);
    f.zeros.emplace_back(0, -centre);
  }
}

/// s = (z - 1) / (z + 1)
void to_discrete(Rational& f) {
  Complex gain = f.gain;
  for (const Complex& z : f.zeros) gain *= 1.0 - z;
  for (const Complex& p : f.poles) gain /= 1.0 - p;
  f.gain = gain.real();
  const Index excess = f.excess();
  for (Roots* roots : {&f.zeros, &f.poles})
    for (Complex& r : *roots) r = r.imag() == 0 ? (1 + r.real()) / (1 - r.real()) : (1.0 + r) / (1.0 - r);
  f.zeros.insert(f.zeros.end(), static_cast<std::size_t>(excess), -1.0);
}

bool is_real(const Complex& c) { return c.imag() == 0; }

/// Takes the nearest root out of those that `may` be taken; false when there is none.
template <class May, class Distance>
bool take(Roots& roots, May may, Distance distance, Complex& taken) {
  auto best = roots.end();
  for (auto at = roots.begin(); at != roots.end(); ++at)
    if (may(*at) && (best == roots.end() || distance(*at) < distance(*best))) best = at;
  if (best == roots.end()) return false;
  taken = *best;
  roots.erase(best);
  return true;
}

/// The conjugate of a root that has just been taken, which is there to the bit or to rounding.
void take_conjugate(Roots& roots, const Complex& of) {
  Complex unused;
  take(
      roots, [](const Complex& r) { return !is_real(r); },
      [&](const Complex& r) { return std::abs(r - std::conj(of)); }, unused);
}

std::vector<Biquad> pair_up(Rational f) {
  std::vector<Biquad> sections;
  Roots &zeros = f.zeros, &poles = f.poles;
  while (!poles.empty()) {
    Complex p1, p2, z1, z2;
    take(
        poles, [](const Complex&) { return true; }, [](const Complex& p) { return std::abs(1 - std::abs(p)); }, p1);
    bool two = true;
    if (!is_real(p1)) {
      p2 = std::conj(p1);
      take_conjugate(poles, p1);
    } else {
      two = take(
          poles, is_real, [](const Complex& p) { return std::abs(1 - std::abs(p)); }, p2);
    }
    auto distance = [&](const Complex& z) { return std::abs(z - p1); };
    Biquad s;
    if (two) {
      // a single real zero belongs to a single real pole
      const bool reals = std::count_if(zeros.begin(), zeros.end(), is_real) != 1;
      take(
          zeros, [&](const Complex& z) { return reals || !is_real(z); }, distance, z1);
      if (is_real(z1)) {
        take(zeros, is_real, distance, z2);
      } else {
        z2 = std::conj(z1);
        take_conjugate(zeros, z1);
      }
      s.b1 = -(z1 + z2).real();
      s.b2 = (z1 * z2).real();
      s.a1 = -(p1 + p2).real();
      s.a2 = (p1 * p2).real();
    } else {
      take(zeros, is_real, distance, z1);
      s.b1 = -z1.real();
      s.a1 = -p1.real();
    }
    sections.push_back(s);
  }
  std::reverse(sections.begin(), sections.end());
  Biquad& first = sections.front();
  first.b0 *= f.gain;
  first.b1 *= f.gain;
  first.b2 *= f.gain;
  return sections;
}
}  // namespace

std::vector<Biquad> iir_design(const std::string& family, const std::string& pass, Index order, double low_hz,
                               double high_hz, double ripple_db, double stop_db, double rate_hz) {
  Rational f = prototype(family, order, ripple_db, stop_db);
  const double low = std::tan(pi * low_hz / rate_hz), high = std::tan(pi * high_hz / rate_hz);
  if (pass == "low") scale_low(f, high);
  else if (pass == "high") turn_high(f, low);
  else if (pass == "band") spread_band(f, low, high);
  else spread_stop(f, low, high);
  to_discrete(f);
  return pair_up(std::move(f));
}

Biquad notch(double at_hz, double width_hz, double rate_hz) {
  const double g = 1 / (1 + std::tan(pi * width_hz / rate_hz)), c = std::cos(2 * pi * at_hz / rate_hz);
  return {g, -2 * g * c, g, -2 * g * c, 2 * g - 1};
}

std::vector<Biquad> iir_sections(const IirParams& p, double rate_hz, const Context& context) {
  std::vector<Biquad> sections;
  if (!p.sections.empty()) {
    require(p.sections.size() % 6 == 0, context, "sections", fmt::format("{} numbers", p.sections.size()),
            "six a section: b0, b1, b2, a0, a1, a2");
    for (std::size_t k = 0; k < p.sections.size(); k += 6) {
      const double* c = p.sections.data() + k;
      require(c[3] != 0, context, "sections", fmt::format("a0 = 0 in section {}", k / 6 + 1), "a number that is not 0");
      sections.push_back({c[0] / c[3], c[1] / c[3], c[2] / c[3], c[4] / c[3], c[5] / c[3]});
      require(sections.back().stable(), context, "sections", fmt::format("section {} is not stable", k / 6 + 1),
              "poles inside the unit circle, |a2| < |a0| and |a1| < |a0 + a2|");
    }
    return sections;
  }
  const std::string inside = fmt::format("an edge between 0 and half the rate, {} Hz", rate_hz / 2);
  auto check = [&](const char* key, double hz) {
    require(hz > 0 && hz < rate_hz / 2, context, key, fmt::format("{} Hz", hz), inside);
  };
  if (p.pass == "notch") {
    require(!p.notch_hz.empty(), context, "notch_hz", "[]", "at least one frequency");
    for (const double hz : p.notch_hz) {
      require(hz > 0 && hz < rate_hz / 2, context, "notch_hz", fmt::format("{} Hz", hz),
              fmt::format("a frequency between 0 and half the rate, {} Hz", rate_hz / 2));
      require(p.width_hz / 2 < std::min(hz, rate_hz / 2 - hz), context, "width_hz", fmt::format("{} Hz", p.width_hz),
              fmt::format("a gap about {} Hz that lies between 0 and half the rate, {} Hz", hz, rate_hz / 2));
      sections.push_back(notch(hz, p.width_hz, rate_hz));
    }
  } else {
    if (p.pass != "low") check("low_hz", p.low_hz);
    if (p.pass != "high") check("high_hz", p.high_hz);
    if (p.pass == "band" || p.pass == "stop")
      require(p.low_hz < p.high_hz, context, "low_hz", fmt::format("{} Hz", p.low_hz),
              fmt::format("less than high_hz = {} Hz", p.high_hz));
    sections =
        iir_design(p.family, p.pass, static_cast<Index>(p.order), p.low_hz, p.high_hz, p.ripple_db, p.stop_db, rate_hz);
  }
  // an edge so low, or a band so narrow, that its poles round to the unit circle
  const bool stable = std::all_of(sections.begin(), sections.end(),
                                  [](const Biquad& s) { return s.stable() && std::isfinite(s.b0 + s.b1 + s.b2); });
  require(stable, context,
          p.pass == "notch" ? "width_hz"
          : p.pass == "low" ? "high_hz"
                            : "low_hz",
          "a filter whose poles are not inside the unit circle",
          fmt::format("edges that are less extreme for {} Hz, or a lower order", rate_hz));
  return sections;
}

void IirKernel::prepare(const std::vector<Biquad>& sections, Index rows, bool steady) {
  sections_ = static_cast<Index>(sections.size());
  coefficients_.clear();
  for (const Biquad& s : sections) coefficients_.insert(coefficients_.end(), {s.b0, s.b1, s.b2, s.a1, s.a2});
  rows_ = rows;
  steady_ = steady;
  gain_ = 1;
  for (const Biquad& s : sections) gain_ *= (s.b0 + s.b1 + s.b2) / (1 + s.a1 + s.a2);
  const auto tiled = static_cast<std::size_t>((rows + kTile - 1) / kTile * kTile);
  delays_.resize(2 * sections.size() * tiled);
  held_.resize(tiled);
  first_.resize(tiled);
  started_.resize(tiled);
  work_.resize(static_cast<std::size_t>(kChunk * kTile));
  there_.resize(work_.size());
  reset();
}

void IirKernel::reset() noexcept {
  std::fill(delays_.begin(), delays_.end(), 0.0);
  std::fill(held_.begin(), held_.end(), 0.0);
  std::fill(first_.begin(), first_.end(), 0.0);
  std::fill(started_.begin(), started_.end(), std::uint8_t{0});
}

std::int64_t IirKernel::run(FrameSpan<const float> in, FrameSpan<float> out) noexcept {
  const FlushDenormals scope;
  return filter(in, out);
}

std::int64_t IirKernel::run(FrameSpan<const double> in, FrameSpan<double> out) noexcept {
  const FlushDenormals scope;
  return filter(in, out);
}

/// A whole tile of rows that have all begun; false when a value is missing.
template <class T>
bool IirKernel::load(FrameSpan<const T> in, Index row) noexcept {
  using Values = Eigen::Array<T, kTile, 1>;
  const auto first = Eigen::Map<const Lanes>(first_.data() + row);
  Values bad = Values::Zero();
  for (Index k = 0; k < in.frames; ++k) {
    const auto x = Eigen::Map<const Values>(in.frame(k) + row);
    Eigen::Map<Lanes>(work_.data() + k * kTile) = x.template cast<double>() - first;
    bad += unusable<T, kTile>(x);
  }
  return bad.sum() == 0;
}

template <class T>
std::int64_t IirKernel::load_with_gaps(FrameSpan<const T> in, Index row) noexcept {
  const Index width = std::min(kTile, rows_ - row);
  std::int64_t missing = 0;
  for (Index r = 0; r < kTile; ++r) {
    const auto at = static_cast<std::size_t>(row + r);
    for (Index k = 0; k < in.frames; ++k) {
      const auto cell = static_cast<std::size_t>(k * kTile + r);
      const double x = r < width ? static_cast<double>(in.frame(k)[row + r]) : 0;
      const bool there = usable(x);
      if (there) {
        if (!started_[at]) first_[at] = steady_ ? x : 0;
        started_[at] = 1;
        held_[at] = x - first_[at];
      }
      there_[cell] = there;
      work_[cell] = held_[at];
      missing += !there;
    }
  }
  return missing;
}

template <class T>
std::int64_t IirKernel::filter(FrameSpan<const T> all_in, FrameSpan<T> all_out) noexcept {
  std::int64_t missing = 0;
  for (Index done = 0; done < all_in.frames; done += kChunk) {
    const Index n = std::min(kChunk, all_in.frames - done);
    const auto in = all_in.slice(done, n);
    const auto out = all_out.slice(done, n);
    for (Index row = 0; row < rows_; row += kTile) {
      const Index width = std::min(kTile, rows_ - row);
      const auto begun = started_.begin() + row;
      bool whole = width == kTile && std::all_of(begun, begun + kTile, [](auto s) { return s != 0; }) && load(in, row);
      if (whole) std::copy_n(work_.data() + (n - 1) * kTile, kTile, held_.data() + row);
      else missing += load_with_gaps(in, row);

      wide::second_order_sections(coefficients_.data(), sections_, delays_.data() + 2 * sections_ * row, work_.data(),
                                  n);

      const Lanes rest = gain_ * Eigen::Map<const Lanes>(first_.data() + row);
      for (Index k = 0; k < n; ++k) {
        const auto y = Eigen::Map<const Lanes>(work_.data() + k * kTile) + rest;
        T* to = out.frame(k) + row;
        if (whole) {
          Eigen::Map<Eigen::Array<T, kTile, 1>>{to} = y.template cast<T>();
          continue;
        }
        const std::uint8_t* there = there_.data() + k * kTile;
        for (Index r = 0; r < width; ++r) to[r] = there[r] ? static_cast<T>(y(r)) : std::numeric_limits<T>::quiet_NaN();
      }
    }
  }
  return missing;
}

namespace {
class Iir final : public Typed<Iir> {
 public:
  struct Params : IirParams {
    std::string initial = "steady";
    static constexpr auto fields() {
      return std::tuple_cat(
          IirParams::fields(),
          std::tuple{choice("initial", &Params::initial,
                            "What the filter takes a row to have been before its first value: steady (that value, so "
                            "that an offset makes no transient) or zero.",
                            "steady|zero")});
    }
  };
  explicit Iir(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "iir");
    kernel_.prepare(iir_sections(p_, in.rate_hz, context), in.size(), p_.initial == "steady");
    held_ = &context.counter("held");
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    if (const auto missing = kernel_.run(in, out)) held_->add(missing);
    return in.frames;
  }
  void reset() noexcept override { kernel_.reset(); }
  void visit_state(StateVisitor& v) noexcept override { kernel_.visit_state(v); }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .per_row = true, .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  IirKernel kernel_;
  Counter* held_ = nullptr;
};
}  // namespace

StageInfo info_iir() {
  auto i = stage_info<Iir>(
      "iir", "preprocessing",
      "Low-, high-, band-pass, band-stop or notch by second-order sections (Butterworth, Chebyshev), or by given ones. "
      "Cheap at high rates and narrow bands. Its delay depends on the frequency, so none is taken off the clock; fir "
      "delays all alike. A missing value is NaN, holds the row's last one in the filter, and is counted as 'held'.");
  i.paper = "Oppenheim and Schafer, Discrete-Time Signal Processing, sections 6.3, 6.9 and 7.1 and appendix B";
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    auto add = [&](Value params, Index rows) {
      Sample s;
      s.format = time_format(rows, 100.0);
      s.params = std::move(params);
      for (auto& each : both_scalars(s)) all.push_back(each);
    };
    add(Value::object({{"low_hz", 5.0}, {"high_hz", 20.0}}), 5);
    add(Value::object({{"low_hz", 5.0}, {"high_hz", 20.0}, {"order", 3}, {"family", "chebyshev1"}}), 19);
    add(Value::object({{"pass", "low"}, {"high_hz", 20.0}, {"family", "chebyshev2"}, {"initial", "zero"}}), 8);
    add(Value::object({{"pass", "notch"}, {"notch_hz", Value(std::vector<double>{20.0, 40.0})}}), 3);
    return all;
  };
  return i;
}

}  // namespace percept
