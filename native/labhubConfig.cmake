# find_package(labhub CONFIG): the header-only core as the target labhub::core.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/labhubTargets.cmake)
