# Only what the system has. Every package is Debian 12's; ./dev setup installs them.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(TBB REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(CURL REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(ZLIB REQUIRED)
find_package(ITK 5.2 REQUIRED COMPONENTS ITKIONIFTI QUIET)  # one reader, no factory of the others
find_package(PkgConfig REQUIRED)
pkg_check_modules(MATIO REQUIRED IMPORTED_TARGET matio)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)  # never the reference BLAS: it is twenty times slower
pkg_check_modules(FFTW REQUIRED IMPORTED_TARGET fftw3)
if(PERCEPT_WITH_TORCH)
  find_package(Torch REQUIRED)  # or a newer one, by Torch_DIR
endif()
if(PERCEPT_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(PERCEPT_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
