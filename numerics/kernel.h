/// Covariance functions of Gaussian processes: sums of kernels over inputs that are weighted by learned lengths.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/stream.h"
#include "numerics/wide.h"

namespace percept {

/// With s² the kernel's variance, w_i the weight of input i (1 / length²), m inputs, r² = sum_i w_i (x_i - y_i)²:
enum class KernelShape {
  squared_exponential,  ///< s² exp(-r² / 2)
  rational_quadratic,   ///< s² (1 + r² / 2a)^-a
  matern32,             ///< s² (1 + √3 r) exp(-√3 r)
  linear,               ///< s² sum_i w_i x_i y_i
  multi_kernel,  ///< s² / m sum_i exp(-w_i (x_i - y_i)² / 2): one bad input costs at most 1 / m of the similarity;
                 ///< Brandman et al., Neural Computation 30 (2018) 2986
};

/// Which inputs share a length.
enum class KernelLengths {
  one,   ///< all
  rows,  ///< none: a length for each (automatic relevance determination)
  axes,  ///< log w = a[first index] + b[second index] + ...: one entry for each index of each axis of the input's shape
};

/// A sum of kernels that share the weights of the inputs. Hyperparameters theta: the entries of log w (see
/// KernelLengths), then for each kernel log s² and, of a rational quadratic, log a.
class Kernel {
 public:
  /// shape: of one input frame, last index fastest. Throws Error when there is no kernel or no input.
  Kernel(std::vector<KernelShape> shapes, KernelLengths lengths, std::vector<Index> input_shape);

  Index inputs() const { return groups_.rows(); }
  Index size() const { return static_cast<Index>(names_.size()); }
  Index weight_entries() const { return weight_entries_; }  ///< the first so many of theta make log w
  const std::vector<std::string>& names() const {
    return names_;
  }  ///< of theta: "log_weight.0.3", "linear.log_variance"
  const std::vector<KernelShape>& shapes() const { return shapes_; }

  /// w of each input.
  Eigen::VectorXd weights(const Eigen::VectorXd& theta) const;
  /// The theta whose weights come nearest to these (least squares in the logarithm), with the kernels sharing `variance`
  /// (a linear one by its mean over inputs of variance 1 / w) and a = 1.
  Eigen::VectorXd start(const Eigen::VectorXd& weights, double variance) const;

  /// How far each entry of log w lies from the mean of its axis (of all entries when there are no axes); 0 for the rest
  /// of theta.
  Eigen::VectorXd deviations(const Eigen::VectorXd& theta) const;

  /// k(a_i, b_j), columns of a (inputs x n) by columns of b.
  Eigen::MatrixXd covariance(const Eigen::VectorXd& theta, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) const;
  /// k(x_i, x_j) on and below the diagonal, which is what a Cholesky factor is made of; 0 above it.
  Eigen::MatrixXd lower_covariance(const Eigen::VectorXd& theta, const Eigen::MatrixXd& x) const;
  /// sum_j weights_j k(x_i, points_j) for every column x_i of x, without holding the whole of k.
  Eigen::VectorXd sums(const Eigen::VectorXd& theta, const Eigen::MatrixXd& points, const Eigen::VectorXd& weights,
                       const Eigen::MatrixXd& x) const;
  /// k(x_i, x_i)
  Eigen::VectorXd variances(const Eigen::VectorXd& theta, const Eigen::MatrixXd& x) const;
  /// Of sum_ij g_ij k(x_i, x_j) with respect to theta; g is symmetric.
  Eigen::VectorXd gradient(const Eigen::VectorXd& theta, const Eigen::MatrixXd& x, const Eigen::MatrixXd& g) const;

 private:
  friend class KernelRow;
  struct Term {
    KernelShape shape;
    double variance, exponent;  ///< exponent: of a rational quadratic
    Index at;                   ///< of log s² in theta
  };
  std::vector<Term> terms(const Eigen::VectorXd& theta) const;
  bool has(KernelShape shape) const;
  bool needs_distance() const;
  /// Gives `take` the columns of k(a, b) one after another: its number, the first row of interest (the diagonal with
  /// `lower`, else 0) and the values from there on.
  template <class Take>
  void columns(const Eigen::VectorXd& theta, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b, bool lower,
               const Take& take) const;

  std::vector<KernelShape> shapes_;
  Eigen::MatrixXd groups_;  ///< inputs x weight entries, 0 or 1: log w = groups theta
  Index weight_entries_;
  std::vector<Index> axes_;  ///< how many entries of log w each axis has
  std::vector<std::string> names_;
};

/// Covariances of frames with fixed points, in a loop.
class KernelRow {
 public:
  /// points: inputs x n, at least one.
  KernelRow(const Kernel& kernel, const Eigen::VectorXd& theta, const Eigen::MatrixXd& points);
  /// At up to wide::kTogether frames, one after another in x. Allocates nothing.
  void look(const double* x, Index frames) noexcept;
  /// k(x_f, point_j) of every point, for the f-th frame of the last call; until the next call.
  Eigen::Map<const Eigen::VectorXd> row(Index f = 0) const {
    return Eigen::Map<const Eigen::VectorXd>(rows_.col(f).data(), distance2_.size());
  }
  /// k(x_f, x_f)
  double variance(Index f = 0) const noexcept { return variances_(f); }

 private:
  void finish(Index frame) noexcept;

  std::vector<Kernel::Term> terms_;
  bool distance_, linear_;
  Eigen::VectorXd root_weights_, packed_;  ///< packed_: weighted points as numerics/wide.h wants them
  Eigen::MatrixXd points_;                 ///< points x inputs, weighted; empty where only distances count
  Eigen::MatrixXd frames_, rows_;          ///< weighted inputs, points (padded) x frames
  Eigen::VectorXd distance2_, product_, term_, variances_;
};

}  // namespace percept
