#include "core/threads.h"

#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include "core/hand_over.h"
#include "core/log.h"

namespace percept {

namespace {
struct Budget {
  std::mutex mutex;
  int threads = std::max(1u, std::thread::hardware_concurrency());
  int kernel_threads = 1;
  std::unique_ptr<oneapi::tbb::global_control> tbb;
  std::vector<std::function<void(int)>> setters;
};
Budget& budget() {
  static Budget b;
  return b;
}
// OpenBLAS would take every core by itself: a program that never sets a budget gets one kernel thread too
[[maybe_unused]] const bool kOneKernelThread = (openblas_set_num_threads(1), true);
}  // namespace

void set_thread_budget(int n) {
  auto& b = budget();
  {
    std::lock_guard lock(b.mutex);
    b.threads = n > 0 ? n : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    b.tbb.reset();
    b.tbb = std::make_unique<oneapi::tbb::global_control>(oneapi::tbb::global_control::max_allowed_parallelism,
                                                          static_cast<std::size_t>(b.threads));
  }
  set_kernel_threads(1);
}
int thread_budget() {
  auto& b = budget();
  std::lock_guard lock(b.mutex);
  return b.threads;
}
void in_parallel(std::size_t count, int threads, const std::function<void(std::size_t)>& body) {
  static char begun, done;  // static: a body must not read what it captured before it has received it
  const auto one = [&](std::size_t i) {
    receive(&begun);
    const HandOverAtEnd at_end(&done);
    body(i);
  };
  hand_over(&begun);
  const ReceiveAtEnd at_end(&done);
  oneapi::tbb::task_arena arena(std::max(1, threads));
  arena.execute([&] { oneapi::tbb::parallel_for(std::size_t{0}, count, one); });
}
void set_kernel_threads(int n) {
  auto& b = budget();
  std::lock_guard lock(b.mutex);
  b.kernel_threads = std::clamp(n, 1, b.threads);
  openblas_set_num_threads(b.kernel_threads);
  for (auto& s : b.setters) s(b.kernel_threads);
}
void on_kernel_threads(std::function<void(int)> setter) {
  auto& b = budget();
  std::lock_guard lock(b.mutex);
  setter(b.kernel_threads);
  b.setters.push_back(std::move(setter));
}
void restart_with_fast_blas([[maybe_unused]] char** argv) {
#ifdef __x86_64__
  constexpr const char* kChoice = "OPENBLAS_CORETYPE";
  if (std::getenv(kChoice) || std::string_view(openblas_get_corename()) != "Prescott") return;
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!avx2) return;
  setenv(kChoice, avx512 ? "SkylakeX" : "Haswell", 1);
  execv("/proc/self/exe", argv);
  unsetenv(kChoice);  // it could not be started: slow is better than not at all
#endif
}
const char* blas_name() {
  static const std::string name = std::string("OpenBLAS ") + openblas_get_config();
  return name.c_str();
}

}  // namespace percept
