# One CMake target percept::<folder> for each folder.

include(GNUInstallDirs)
set_property(GLOBAL PROPERTY PERCEPT_LIBRARIES "")
set_property(GLOBAL PROPERTY PERCEPT_TORCH_SOURCES "")
set_property(GLOBAL PROPERTY PERCEPT_TORCH_KERNELS "")
set_property(GLOBAL PROPERTY PERCEPT_TORCH_INTERFACES "")

add_library(percept_flags INTERFACE)
target_compile_options(percept_flags INTERFACE -Wall -Wextra -Wpedantic -Wnon-virtual-dtor)
# fused multiply-adds would let a result depend on how a loop was split
target_compile_options(percept_flags INTERFACE -ffp-contract=off)
if(PERCEPT_WERROR)
  target_compile_options(percept_flags INTERFACE -Werror)
endif()

# percept_library(folder [SHARED] SOURCES a.cpp ... [PUBLIC targets ...] [PRIVATE targets ...])
# Headers lie beside the sources and are included as "folder/name.h".
function(percept_library folder)
  cmake_parse_arguments(ARG "SHARED" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  set(target percept_${folder})
  if(ARG_SHARED)
    add_library(${target} SHARED ${ARG_SOURCES})
  else()
    add_library(${target} STATIC ${ARG_SOURCES})
  endif()
  add_library(percept::${folder} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${folder} OUTPUT_NAME percept_${folder})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/percept>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:percept_flags>)
  if(PERCEPT_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  endif()
  set_property(GLOBAL APPEND PROPERTY PERCEPT_LIBRARIES ${target})
endfunction()

# percept_torch(SOURCES a_torch.cpp ... [KERNELS b.cpp ...] INTERFACES a.h ...): what a folder gives to the LibTorch module
# (percept/); kernels are inner loops, always optimised to the full. Interfaces are the headers that the module and the
# program must agree on.
function(percept_torch)
  cmake_parse_arguments(ARG "" "" "SOURCES;KERNELS;INTERFACES" ${ARGN})
  list(TRANSFORM ARG_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(TRANSFORM ARG_KERNELS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(TRANSFORM ARG_INTERFACES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set_property(GLOBAL APPEND PROPERTY PERCEPT_TORCH_SOURCES ${ARG_SOURCES})
  set_property(GLOBAL APPEND PROPERTY PERCEPT_TORCH_KERNELS ${ARG_KERNELS})
  set_property(GLOBAL APPEND PROPERTY PERCEPT_TORCH_INTERFACES ${ARG_INTERFACES})
endfunction()

# percept_test(folder SOURCES test_a.cpp ... [LINK targets ...]): one executable test_<folder>.
# The folder's tests find recordings through PERCEPT_DATA_MIRROR.
function(percept_test folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(test_${folder} ${ARG_SOURCES})
  target_link_libraries(test_${folder} PRIVATE ${ARG_LINK} percept_test_support GTest::gmock percept_flags)
  if(PERCEPT_UNITY)
    set_target_properties(test_${folder} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  endif()
  add_test(NAME ${folder} COMMAND test_${folder})
  set_tests_properties(${folder} PROPERTIES TIMEOUT 1800 LABELS unit)  # for sanitizers on a busy machine
endfunction()
