// Layers y = A(x; w), linear in the input x and in the weight w: autograd to any order.
//
// With <dy, A(x; w)> = <Ax(dy; w), x> = <Aw(dy, x), w> the three maps are closed under differentiation:
//
//   y  = A(x; w)      x: Ax(dy; w)      w: Aw(dy, x)
//   dx = Ax(dy; w)   dy: A(t; w)        w: Aw(dy, t)         t the cotangent of dx
//   dw = Aw(dy, x)   dy: A(x; v)        x: Ax(dy; v)         v the cotangent of dw
//
// so no order of gradient needs a product that is not one of the three, none is computed that nobody asked for, and
// where a gradient is missing nothing is computed with zeros in its place.
//
// A Map gives: Config (a torch::CustomClassHolder), and the static functions forward(x, w, bias, config),
// input_gradient(dy, x, w, config), weight_gradient(dy, x, w, config), bias_gradient(dy), each through the dispatcher.
// The input gradient reads of x, and the weight gradient of w, the shape and the memory order alone.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "common/ledger.h"

namespace gan_fast {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class T>
c10::intrusive_ptr<T> held(AutogradContext* ctx, const char* key) {
  return c10::static_intrusive_pointer_cast<T>(ctx->saved_data[key].toCapsule());
}

template <class T>
void hold(AutogradContext* ctx, const char* key, const c10::intrusive_ptr<T>& pointer) {
  ctx->saved_data[key] = c10::IValue::make_capsule(pointer);
}

// A registered op, to be called through the dispatcher.
template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Backward functions run as they are written also where the caller has autocast on: the forward pass cast already.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

// A tensor with a shape and a memory order that count, and values and a graph that do not: not an edge of the node.
struct Like {
  Tensor tensor;
};

// t + x where nobody else sees t: in its memory, which is warm and saves an allocation as large as an activation.
inline Tensor add_into(const Tensor& t, const Tensor& x) {
  const bool ours = !at::GradMode::is_enabled() && t.use_count() == 1 && t.has_storage() &&
                    t.storage().use_count() == 1 && t.is_non_overlapping_and_dense() && t.dtype() == x.dtype();
  return ours ? Tensor(t).add_(x) : t + x;
}

template <class Map>
struct BilinearInputGradient : torch::autograd::Function<BilinearInputGradient<Map>> {
  using Config = c10::intrusive_ptr<typename Map::Config>;

  static Tensor forward(
      AutogradContext* ctx, const Tensor& dy, const Tensor& w, const Like& x, const Config& config,
      const DebtPtr& debt) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dy, w});
    hold(ctx, "config", config);
    if (debt) {
      hold(ctx, "debt", debt);
    }
    const at::AutoDispatchBelowADInplaceOrView guard;
    return Map::input_gradient(dy, x.tensor, w, config);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(5);
    const Tensor& t = grads[0];
    if (!t.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dy = saved[0], &w = saved[1];
    const Config config = held<typename Map::Config>(ctx, "config");
    if (ctx->needs_input_grad(0)) {
      out[0] = Map::forward(t, w, std::nullopt, config);
    }
    if (ctx->needs_input_grad(1)) {
      const DebtPtr debt = ctx->saved_data.count("debt") != 0 ? held<Debt>(ctx, "debt") : DebtPtr();
      if (debt && debt->take()) {
        out[1] = Map::weight_gradient(dy, add_into(t, debt->x), w, config);
        debt->let_go();
      } else {
        out[1] = Map::weight_gradient(dy, t, w, config);
      }
    }
    return out;
  }
};

template <class Map>
struct BilinearWeightGradient : torch::autograd::Function<BilinearWeightGradient<Map>> {
  using Config = c10::intrusive_ptr<typename Map::Config>;

  static Tensor forward(
      AutogradContext* ctx, const Tensor& dy, const Tensor& x, const Like& w, const Config& config) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dy, x});
    hold(ctx, "config", config);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return Map::weight_gradient(dy, x, w.tensor, config);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(4);
    const Tensor& v = grads[0];
    if (!v.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Config config = held<typename Map::Config>(ctx, "config");
    if (ctx->needs_input_grad(0)) {
      out[0] = Map::forward(saved[1], v, std::nullopt, config);
    }
    if (ctx->needs_input_grad(1)) {
      out[1] = Map::input_gradient(saved[0], saved[1], v, config);
    }
    return out;
  }
};

template <class Map>
struct Bilinear : torch::autograd::Function<Bilinear<Map>> {
  using Config = c10::intrusive_ptr<typename Map::Config>;

  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias,
      const Config& config) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({x, w});
    hold(ctx, "config", config);
    ctx->saved_data["bias"] = bias.has_value() && bias->defined();
    if (const LedgerPtr ledger = Ledger::current()) {
      hold(ctx, "ledger", ledger);
      if (x.scalar_type() == at::kHalf) {
        ledger->half = true;
      }
    }
    const at::AutoDispatchBelowADInplaceOrView guard;
    return Map::forward(x, w, bias, config);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(4);
    const Tensor& dy = grads[0];
    if (!dy.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    const Config config = held<typename Map::Config>(ctx, "config");
    const LedgerPtr ledger = ctx->saved_data.count("ledger") != 0 ? held<Ledger>(ctx, "ledger") : LedgerPtr();
    const bool first = ledger && ledger->first;
    if (ledger && !first) {
      ++ledger->reentered;
    }
    // Where no graph is recorded, a backward inside another node's backward is running, which wants its own answer.
    if (first && at::GradMode::is_enabled() && ctx->needs_input_grad(0) && ctx->needs_input_grad(1) &&
        ledger->may_wait(w)) {
      auto debt = c10::make_intrusive<Debt>();
      debt->dy = dy.detach();
      debt->x = x.detach();
      debt->w = w;
      debt->weight_gradient = [config](const Tensor& dy, const Tensor& x, const Tensor& w) {
        return Map::weight_gradient(dy, x, w, config);
      };
      out[0] = BilinearInputGradient<Map>::apply(dy, w, Like{x}, config, ledger->open(std::move(debt)));
    } else {
      if (ctx->needs_input_grad(0)) {
        out[0] = Map::input_gradient(dy, x, w, config);
      }
      if (ctx->needs_input_grad(1)) {
        out[1] = Map::weight_gradient(dy, x, w, config);
      }
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) {
      out[2] = Map::bias_gradient(dy);
    }
    return out;
  }
};

// The op under autocast: in the narrow type, as aten's own layers are.
template <c10::DeviceType kDevice>
Tensor narrow(const Tensor& x) {
  return at::autocast::cached_cast(at::autocast::get_lower_precision_fp_from_device_type(kDevice), x, kDevice);
}

}  // namespace gan_fast
