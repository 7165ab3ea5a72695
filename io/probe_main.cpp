/// percept-probe KIND FILE: reads a whole foreign file with libraries that may crash on it.
/// Ends with 0 when all is well; with 3 and "field NUL expected NUL found" on standard output when the file is not.
#include <sys/resource.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/hdf5_handle.h"

int main(int argc, char** argv) {
  using percept::Exit;
  if (argc != 3 || (std::strcmp(argv[1], "hdf5") != 0 && std::strcmp(argv[1], "mat") != 0)) {
    std::fputs("usage: percept-probe hdf5|mat FILE\n(part of percept: reads a foreign file before percept does)\n",
               stderr);
    return static_cast<int>(Exit::usage);
  }
  const std::filesystem::path file = argv[2];
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // a small file must not ask for all memory of the machine
  std::error_code ignored;
  const rlim_t room = (rlim_t{8} << 30) + 8 * static_cast<rlim_t>(std::filesystem::file_size(file, ignored));
  const rlimit memory{room, room};
  setrlimit(RLIMIT_AS, &memory);
#endif
  try {
    if (std::strcmp(argv[1], "mat") == 0) percept::io::walk_mat(file);
    else percept::io::walk_hdf5(file);
    return 0;
  } catch (const percept::DataError& e) {
    const std::string text = e.field() + '\0' + e.expected() + '\0' + e.found();
    std::fwrite(text.data(), 1, text.size(), stdout);
    return static_cast<int>(Exit::bad_input);
  } catch (const std::exception& e) {
    std::fputs(e.what(), stdout);
    return static_cast<int>(Exit::run_failed);
  }
}
