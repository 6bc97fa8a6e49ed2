#include "common/cuda/bindings.h"

#include <c10/util/Exception.h>

#include <memory>
#include <string>

#include "common/cuda/embedded.h"
#include "common/cuda/launcher.h"

namespace gan_fast::cuda {
namespace {

namespace py = pybind11;

py::dict cuda_info() {
  py::dict info;
  std::string why;
  info["driver_version"] = driver_version(&why);
  info["driver_error"] = why;
  info["archs"] = std::string(embedded_archs);
  py::dict kernels;
  for (int i = 0; i < embedded_kernel_count; ++i) {
    const EmbeddedKernel& k = embedded_kernels[i];
    py::dict one;
    one["fatbin_bytes"] = k.fatbin ? k.fatbin_size : size_t{0};
    one["source"] = std::string(k.source);
    kernels[k.name] = one;
  }
  info["kernels"] = kernels;
  py::list list;
  for (const Served& s : served()) list.append(py::make_tuple(s.op, s.device, s.arch, s.by));
  info["served"] = list;
  return info;
}

void set_nvrtc_compiler(py::object compile) {
  if (compile.is_none()) return set_compiler(nullptr);
  // Destroyed never, or the interpreter might be gone by then.
  auto* kept = new py::object(std::move(compile));
  set_compiler([kept](const std::string& op, const std::string& source, int major, int minor) {
    const py::gil_scoped_acquire gil;
    try {
      return std::string(py::cast<py::bytes>((*kept)(op, source, major, minor)));
    } catch (py::error_already_set& error) {
      // Not let through as it is: autograd's threads would carry a Python exception across without the GIL.
      TORCH_CHECK(false, error.what());
    }
  });
}

}  // namespace

void add_bindings(py::module_& module) {
  module.def("cuda_info", &cuda_info, "The CUDA driver, the embedded device code, and what has been loaded where.");
  module.def("set_nvrtc_compiler", &set_nvrtc_compiler, py::arg("compile"),
             "Sets compile(op, source, major, minor) -> cubin, used where no embedded code fits the card.");
}

}  // namespace gan_fast::cuda
