# find_package(gemmule) gives the targets gemmule::gemmule (shared) and gemmule::static.
get_filename_component(_gemmule_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_package(Threads REQUIRED)
if(NOT TARGET gemmule::gemmule)
  add_library(gemmule::gemmule SHARED IMPORTED)
  set_target_properties(gemmule::gemmule PROPERTIES
    IMPORTED_LOCATION "${_gemmule_prefix}/lib/libgemmule.so"
    IMPORTED_NO_SONAME TRUE
    INTERFACE_INCLUDE_DIRECTORIES "${_gemmule_prefix}/include")
  add_library(gemmule::static STATIC IMPORTED)
  set_target_properties(gemmule::static PROPERTIES
    IMPORTED_LOCATION "${_gemmule_prefix}/lib/libgemmule.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_gemmule_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()
