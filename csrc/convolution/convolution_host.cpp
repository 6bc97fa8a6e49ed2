#include "convolution/convolution_host.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <unordered_set>
#include <vector>

namespace gan_fast {

using torch::autograd::AccumulateGrad;
using torch::autograd::Node;

bool flows_beyond_kernels(const at::Tensor& w) {
  const auto kernel = [&w](c10::SymIntArrayRef sizes) {
    return sizes.size() == w.sym_sizes().size() && sizes.slice(2) == w.sym_sizes().slice(2);
  };
  // What `autograd.grad` and `backward(inputs=...)` asked for; where it is empty, every leaf is.
  const auto* asked = torch::autograd::get_current_graph_task_exec_info();
  const bool all = asked == nullptr || asked->empty();
  std::vector<Node*> next{torch::autograd::impl::gradient_edge(w).function.get()};
  std::unordered_set<Node*> seen{nullptr};
  while (!next.empty()) {
    Node* const node = next.back();
    next.pop_back();
    if (!seen.insert(node).second) {
      continue;
    }
    if (!all) {
      const auto info = asked->find(node);
      if (info == asked->end() || !info->second.should_execute()) {
        continue;
      }
      if (info->second.captures_) {
        for (const auto& capture : *info->second.captures_) {
          if (!kernel(node->input_metadata(capture.input_idx_).shape_as_dim_vector())) {
            return true;
          }
        }
        if (!info->second.needed_) {
          continue;
        }
      }
    }
    if (const auto* leaf = dynamic_cast<AccumulateGrad*>(node); leaf != nullptr) {
      if (!kernel(leaf->variable.sym_sizes())) {
        return true;
      }
    }
    for (const auto& edge : node->next_edges()) {
      next.push_back(edge.function.get());
    }
  }
  return false;
}

}  // namespace gan_fast
