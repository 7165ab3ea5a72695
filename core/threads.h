/// The one place that decides how many threads anything uses.
#pragma once

#include <cstddef>
#include <functional>

namespace percept {

/// Sets the budget for oneTBB, OpenBLAS, OpenMP and (when it is loaded) LibTorch. n <= 0: all cores.
/// Either the pipeline is parallel or the kernel inside is: kernels get one thread unless told otherwise.
void set_thread_budget(int n);
int thread_budget();
/// Calls body(0) ... body(count - 1), in any order, on up to `threads` threads. What a call throws is thrown here, and
/// calls that have not begun are then left out.
void in_parallel(std::size_t count, int threads, const std::function<void(std::size_t)>& body);
/// Threads that OpenBLAS may use now; set_kernel_threads(n) for a fit that is alone on the machine.
void set_kernel_threads(int n);
/// Registers a setter of another library's thread count (the Torch module does); called at once and on each change.
void on_kernel_threads(std::function<void(int)> setter);
/// The BLAS in use, with the kernel it chose for this processor. percept links OpenBLAS itself: the reference BLAS was
/// twenty times slower.
const char* blas_name();
/// For main(), before anything else is started. OpenBLAS chooses its kernels when it is loaded, by a list of processors;
/// one that is newer than the list gets those of 2004, four times slower. Then this starts the program anew, once, with
/// OPENBLAS_CORETYPE naming the best ones that the processor runs; it returns where there is nothing to gain, or where
/// the user has set that variable.
void restart_with_fast_blas(char** argv);

}  // namespace percept
