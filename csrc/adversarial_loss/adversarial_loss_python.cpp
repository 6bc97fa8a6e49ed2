// The short way from Python to the adversarial loss of one tensor of real and one of fake logits.
//
// torch.ops turns every argument into a boxed value and back, which costs more than 64 logits do. The coefficients of a loss
// never change, so here they are an object's, and a call passes two tensors. It enters the same dispatcher.

#include "adversarial_loss/adversarial_loss_python.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "adversarial_loss/adversarial_loss_host.h"

namespace gan_fast {
namespace {

namespace py = pybind11;

struct PlainLoss {
  int64_t kind;
  std::vector<double> real_term, fake_term;
  int64_t reduction;

  AdversarialResult call(const Tensor& real, const Tensor& fake, bool with_stats, bool with_gradients) const {
    AdversarialArgs a;
    a.real = real;
    a.fake = fake;
    a.kind = static_cast<Kind>(kind);
    a.real_term = term_numbers(real_term);
    a.fake_term = term_numbers(fake_term);
    a.reduction = reduction;
    return call_loss(a, with_stats, with_gradients);
  }
};

}  // namespace

void add_adversarial_bindings(py::module_& module) {
  using Term = std::vector<double>;
  py::class_<PlainLoss>(module, "PlainLoss", "An adversarial loss of one tensor of real and one of fake logits.")
      .def(py::init([](int64_t kind, Term real_term, Term fake_term, int64_t reduction) {
        return PlainLoss{kind, std::move(real_term), std::move(fake_term), reduction};
      }))
      .def(
          "loss",
          torch::wrap_pybind_function_no_gil([](const PlainLoss& self, const Tensor& real, const Tensor& fake) {
            return std::get<0>(self.call(real, fake, false, false));
          }))
      .def(
          "gradients",
          torch::wrap_pybind_function_no_gil([](const PlainLoss& self, const Tensor& real, const Tensor& fake) {
            auto g = std::get<2>(self.call(real, fake, false, true));
            return std::pair(std::move(g[0]), std::move(g[1]));
          }));
}

}  // namespace gan_fast
