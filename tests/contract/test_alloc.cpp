/// The counter sees what a loop must not do. Sums are volatile so that nothing is optimised away.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "tests/support/alloc.h"

namespace percept::testing {
namespace {

class Allocations : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!AllocationCounter::available()) GTEST_SKIP() << "a sanitizer brings its own malloc";
  }
  Eigen::MatrixXd a_ = Eigen::MatrixXd::Random(40, 40), b_ = Eigen::MatrixXd::Random(40, 40), c_{40, 40};
  volatile double sink_ = 0;
};

double corner(const Eigen::Ref<const Eigen::MatrixXd>& m) { return m(0, 0); }

TEST_F(Allocations, SeesAnEigenTemporary) {
  AllocationCounter none;
  c_.noalias() = a_ + b_;
  sink_ = c_(0, 0);
  EXPECT_EQ(none.count(), 0);

  AllocationCounter temporary;
  c_ = a_.lazyProduct(b_).eval() + a_;
  sink_ = c_(0, 0);
  EXPECT_GE(temporary.count(), 1);
}

TEST_F(Allocations, SeesTheCopyThatARefMakesOfATransposedArgument) {
  AllocationCounter none;
  sink_ = corner(a_.leftCols(3));
  EXPECT_EQ(none.count(), 0);
  AllocationCounter copy;
  sink_ = corner(a_.transpose());
  EXPECT_EQ(copy.count(), 1);
}

TEST_F(Allocations, SeesEveryWayToAskForMemory) {
  auto counted = [&](auto ask) {
    AllocationCounter counter;
    void* p = ask();
    const auto n = counter.count();
    *static_cast<volatile char*>(p) = 1;
    std::free(p);
    return n;
  };
  EXPECT_EQ(counted([] { return std::malloc(64); }), 1);
  EXPECT_EQ(counted([] { return std::calloc(4, 64); }), 1);
  EXPECT_EQ(counted([] { return std::realloc(std::malloc(64), 128); }), 2);
  EXPECT_EQ(counted([] { return std::aligned_alloc(64, 128); }), 1);
  EXPECT_EQ(counted([] {
              void* p = nullptr;
              return posix_memalign(&p, 64, 128) == 0 ? p : nullptr;
            }),
            1);
  AllocationCounter counter;
  auto owned = std::make_unique<std::vector<int>>(100);
  sink_ = static_cast<double>(owned->size());
  EXPECT_EQ(counter.count(), 2);
}

TEST_F(Allocations, MemoryIsAligned) {
  void* p = nullptr;
  ASSERT_EQ(posix_memalign(&p, 256, 100), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 256, 0u);
  std::free(p);
  p = nullptr;
  EXPECT_NE(posix_memalign(&p, 24, 100), 0) << "24 is no power of two";
}

TEST_F(Allocations, CountsItsOwnThreadOnly) {
  AllocationCounter here;
  std::int64_t there = 0;
  std::thread other([&] {
    AllocationCounter counter;
    std::vector<double> v(1000, 1.0);
    sink_ = v[3];
    there = counter.count();
  });
  const auto starting = here.count();
  other.join();
  EXPECT_EQ(there, 1);
  EXPECT_EQ(here.count(), starting) << "what the other thread allocates is not counted here";
}

}  // namespace
}  // namespace percept::testing
