/// How the process holds its memory.
#pragma once

namespace percept {

/// For main(). Memory that was freed stays with the process, up to 1 GiB, for the next matrix of that size. By default
/// glibc gives each large one back, and the kernel then clears every page anew: on small fits with many folds that was
/// three quarters of the time. Does nothing with other C libraries.
void keep_freed_memory();

}  // namespace percept
