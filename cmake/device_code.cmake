# Device code, from csrc/<op>/<op>.cu to one C++ file that holds it as data (csrc/common/cuda/embedded.h).

set(GAN_FAST_BUILD "$ENV{GAN_FAST_BUILD}" CACHE STRING "auto, cpu or cuda: whether device code is compiled with nvcc")
set(GAN_FAST_CUDA_ARCHS "$ENV{GAN_FAST_CUDA_ARCHS}" CACHE STRING "architectures for nvcc, such as 80;90;120")
set(default_archs 80 86 89 90 100 120)

# nvcc, or an empty value where GAN_FAST_BUILD or the machine rules it out.
function(find_nvcc result)
  set(kind "${GAN_FAST_BUILD}")
  if(kind STREQUAL "")
    set(kind auto)
  endif()
  if(NOT kind MATCHES "^(auto|cpu|cuda)$")
    message(FATAL_ERROR "GAN_FAST_BUILD is '${kind}'; expected auto, cpu or cuda")
  endif()
  set(${result} "" PARENT_SCOPE)
  if(kind STREQUAL "cpu")
    return()
  endif()
  find_program(GAN_FAST_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS /usr/local/cuda/bin)
  if(GAN_FAST_NVCC)
    set(${result} ${GAN_FAST_NVCC} PARENT_SCOPE)
  elseif(kind STREQUAL "cuda")
    message(FATAL_ERROR "GAN_FAST_BUILD=cuda, but nvcc is neither on PATH nor in CUDA_HOME/bin nor in /usr/local/cuda/bin: install "
                        "the CUDA toolkit or set CUDA_HOME; GAN_FAST_BUILD=auto builds without it, for NVRTC at run time")
  endif()
endfunction()

# The architectures to compile for, sorted. Of the default list those that this nvcc knows; a list that was asked for must be
# known whole.
function(choose_archs result nvcc)
  execute_process(COMMAND ${nvcc} --list-gpu-code OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9]+[a-z]?" known "${known}")
  string(REGEX REPLACE "[, ]+" ";" asked "${GAN_FAST_CUDA_ARCHS}")
  string(REGEX REPLACE "sm_|\\." "" asked "${asked}")
  set(archs "")
  if(asked STREQUAL "")
    foreach(arch IN LISTS default_archs)
      if(arch IN_LIST known)
        list(APPEND archs ${arch})
      endif()
    endforeach()
  else()
    foreach(arch IN LISTS asked)
      if(NOT arch IN_LIST known)
        list(JOIN known " " known)
        message(FATAL_ERROR "GAN_FAST_CUDA_ARCHS names ${arch}, which ${nvcc} does not know; it knows ${known}")
      endif()
      list(APPEND archs ${arch})
    endforeach()
  endif()
  list(SORT archs COMPARE NATURAL)
  set(${result} ${archs} PARENT_SCOPE)
endfunction()

# Sets `result` to the generated C++ file.
function(embed_device_code result device_sources headers)
  find_nvcc(nvcc)
  set(flags "")
  set(archs_text "")
  if(nvcc AND device_sources)
    choose_archs(archs ${nvcc})
    foreach(arch IN LISTS archs)
      list(APPEND flags -gencode arch=compute_${arch},code=sm_${arch})
    endforeach()
    list(GET archs -1 newest)
    list(APPEND flags -gencode arch=compute_${newest},code=compute_${newest})
    set(archs_text "${archs}+PTX")
    # A fifth of the size. Code of CUDA 13 needs a driver of CUDA 13, which unpacks it; older drivers might not.
    execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE version COMMAND_ERROR_IS_FATAL ANY)
    if(version MATCHES "release ([0-9]+)" AND CMAKE_MATCH_1 GREATER_EQUAL 13)
      list(APPEND flags --compress-mode=size)
    endif()
    message(STATUS "gan_fast: device code for ${archs_text} by ${nvcc}")
  else()
    message(STATUS "gan_fast: device code embedded as source, compiled by NVRTC at first use")
  endif()

  set(embed ${PROJECT_SOURCE_DIR}/cmake/embed_device_code.py)
  set(generated ${PROJECT_BINARY_DIR}/embedded_kernels.cpp)
  set(sources "")
  set(fatbins "")
  foreach(source IN LISTS device_sources)
    get_filename_component(name ${source} NAME_WE)
    list(APPEND sources ${PROJECT_SOURCE_DIR}/${source})
    if(NOT flags STREQUAL "")
      set(fatbin ${PROJECT_BINARY_DIR}/device/${name}.fatbin)
      add_custom_command(
        OUTPUT ${fatbin}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/device
        COMMAND ${nvcc} --fatbin ${flags} -std=c++17 -O3 -I ${PROJECT_SOURCE_DIR}/csrc -o ${fatbin} ${PROJECT_SOURCE_DIR}/${source}
        DEPENDS ${PROJECT_SOURCE_DIR}/${source} ${headers}
        COMMENT "Compiling ${source} for ${archs_text}"
        VERBATIM)
      list(APPEND fatbins ${fatbin})
    endif()
  endforeach()
  add_custom_command(
    OUTPUT ${generated}
    COMMAND ${Python_EXECUTABLE} ${embed} --root ${PROJECT_SOURCE_DIR}/csrc --output ${generated} --archs "${archs_text}"
            --sources ${sources} --fatbins ${fatbins}
    DEPENDS ${sources} ${fatbins} ${headers} ${embed}
    COMMENT "Embedding device code"
    VERBATIM)
  set(${result} ${generated} PARENT_SCOPE)
endfunction()
