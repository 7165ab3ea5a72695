# `cmake --install` gives the program, the libraries, their headers and a CMake package: find_package(percept).

include(CMakePackageConfigHelpers)

set(percept_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/percept)
get_property(percept_libraries GLOBAL PROPERTY PERCEPT_LIBRARIES)

set_target_properties(${percept_libraries} PROPERTIES VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} INSTALL_RPATH "$ORIGIN")
install(TARGETS ${percept_libraries} EXPORT perceptTargets)
foreach(library IN LISTS percept_libraries)
  string(REGEX REPLACE "^percept_" "" folder ${library})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/percept/${folder}
          FILES_MATCHING PATTERN "*.h" PATTERN node_modules EXCLUDE)
endforeach()

# the program, and the helper that looks into foreign files for it
foreach(folder cli io)
  get_property(programs DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(program IN LISTS programs)
    get_target_property(type ${program} TYPE)
    if(type STREQUAL "EXECUTABLE")
      set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
      install(TARGETS ${program})
    endif()
  endforeach()
endforeach()

install(EXPORT perceptTargets NAMESPACE percept:: DESTINATION ${percept_package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/perceptConfig.cmake.in ${PROJECT_BINARY_DIR}/perceptConfig.cmake
                              INSTALL_DESTINATION ${percept_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/perceptConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/perceptConfig.cmake ${PROJECT_BINARY_DIR}/perceptConfigVersion.cmake
        DESTINATION ${percept_package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/percept)
